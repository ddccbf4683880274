#!/bin/bash
# Builds the default node image when it is not there.
# usage: node-image.sh KILN [--current]
# With --current also when it is there but was not built from this checkout's recipe.
set -euo pipefail
kiln=$(realpath "$1")
current=${2:-}
cd "$(dirname "$0")/.."

root=${KILN_ROOT:-/var/lib/kiln}
stamp=$root/build/recipe
version=$("$kiln" build node-image --help | sed -n 's/.*\[default: \(v[0-9][0-9.]*\)\].*/\1/p' | head -n 1)
recipe=$(find provision/node-image provision/src/build -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
recipe=${recipe%% *}

if "$kiln" images ls --host -o json | grep -q "\"docker.io/kiln/node:$version\""; then
  if [ -z "$current" ] || [ "$(cat "$stamp" 2>/dev/null)" = "$recipe" ]; then
    echo "node image kiln/node:$version is there"
    exit 0
  fi
fi
"$kiln" build node-image
mkdir -p "$(dirname "$stamp")"
echo "$recipe" > "$stamp"
