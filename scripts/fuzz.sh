#!/bin/bash
# Builds the fuzz targets and runs each of them for a while, from the seeds in fuzz/seeds and from what earlier runs have
# found to lead further. It needs cargo-fuzz, and does without a nightly compiler: there is no sanitizer.
# usage: fuzz.sh SECONDS DIRECTORY [TARGET…]
# FUZZ_SEED=N makes runs alike, for tests of something else; without it every run tries something new.
# DIRECTORY keeps what is built, what was found to lead further, and the inputs that something fails with. The last line of
# each target says "fuzz TARGET: N runs in S s" or "fuzz TARGET: FAILED".
set -euo pipefail
seconds=$1
directory=$(realpath -m "$2")
shift 2
cd "$(dirname "$0")/.."

# Development builds have checks of overflows. Crates that behave in another way when they are fuzzed would not be what is used.
options=(--dev --sanitizer none --no-cfg-fuzzing --target-dir "$directory")
# A target without seeds would begin with nothing.
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
[ ${#targets[@]} -gt 0 ] || { echo "fuzz.sh: there are no targets" >&2; exit 1; }

# All at once, so that they share what they are made of; running finds nothing left to do.
started=$SECONDS
cargo fuzz build "${options[@]}"
echo "built ${targets[*]} in $((SECONDS - started)) s"

# What a target that dies leaves goes with it.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch
ulimit -c 0

run() {
  local name=$1 log=$directory/$1.log kept=$directory/kept/$1 code=0 input
  mkdir -p "$directory/corpus/$name" "$kept"
  touch "$scratch/started"
  cargo fuzz run "${options[@]}" "$name" "$directory/corpus/$name" "$PWD/fuzz/seeds/$name" -- \
    -dict="$PWD/fuzz/dictionaries/$name.dict" -artifact_prefix="$kept/" \
    -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 ${FUZZ_SEED:+-seed="$FUZZ_SEED"} >"$log" 2>&1 || code=$?
  if [ "$code" = 0 ] && grep -q '^Done [0-9]* runs in ' "$log"; then
    sed -n "s/^Done \([0-9]*\) runs in \([0-9]*\) second.*/fuzz $name: \1 runs in \2 s/p" "$log"
    return 0
  fi
  tail -n 60 "$log"
  input=$(find "$kept" -type f -newer "$scratch/started" | head -n 1)
  if [ -n "$input" ]; then
    # Again at the end, for who has only the last lines: what it said, and an input that may be gone with the machine.
    grep -a -A 1 -m 1 ' panicked at ' "$log" | cut -c 1-1000 || true
    [ "$(stat -c %s "$input")" -gt 2000 ] || echo "echo $(base64 -w 0 "$input") | base64 -d > $input"
    echo "again: cargo fuzz run ${options[*]} $name $input"
    echo "fuzz $name: FAILED, the input is kept in $input"
  else
    echo "fuzz $name: FAILED, there is a log in $log"
  fi
  return 1
}

failed=0
for target in "${targets[@]}"; do
  run "$target" || failed=1
done
exit "$failed"
