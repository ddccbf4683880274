#!/bin/bash
# Runs for each container before it has its root: it shall see the node's product files, not the host's. What the runtime
# tells of the container comes on standard input.
set -o errexit -o nounset -o pipefail

bundle=$(jq -r .bundle)
rootfs=$(jq -r .root.path "$bundle/config.json")
[[ $rootfs == /* ]] || rootfs=$bundle/$rootfs
for file in product_name product_uuid; do
  shown=$rootfs/sys/class/dmi/id/$file
  [[ ! -e $shown ]] || mount -o ro,bind "/kind/$file" "$shown"
done
