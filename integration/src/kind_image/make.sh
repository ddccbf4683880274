#!/bin/bash
# Runs in a node of Kiln's image: makes the layer that turns it into a node image to kind's contract, on top of the files that
# are in the directory already. The container images of the node are taken apart and go into another containerd as kind's
# builder brings them in: content and records, and nothing unpacked.
set -o errexit -o nounset -o pipefail

# The agent that Kiln's manifest names is not pulled either: all of the node's images go along.
work=/var/tmp/kind
root=$work/root
socket=/run/kind-containerd.sock
own() { ctr -n k8s.io "$@"; }
# The image's containerd may be another one than the node's.
programs=$root/usr/local/bin:$PATH
kinds() { PATH=$programs ctr -a "$socket" -n k8s.io "$@"; }

mkdir -p "$root/var/lib/containerd" "$root/kind/images"
cat >"$work/containerd.toml" <<END
version = 2
root = "$root/var/lib/containerd"
state = "/run/kind-containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "$socket"
END
PATH=$programs containerd --config "$work/containerd.toml" &>"$work/containerd.log" &
daemon=$!
until kinds version &>/dev/null; do
  kill -0 "$daemon" || { cat "$work/containerd.log" >&2; exit 1; }
  sleep 0.1
done

# Writes image NAME as docker save does, to the file archive.tar.
save() {
  local name=$1 layer=layer.tar mounted=/run/kind-mounted-$RANDOM$RANDOM diff
  rm -rf image && mkdir -p image "$mounted" && cd image
  own images mount "$name" "$mounted" >/dev/null
  tar -C "$mounted" -cf "$layer" .
  own images unmount --rm "$mounted" >/dev/null
  diff=$(sha256sum "$layer")
  crictl inspecti -o json "$name" | jq --arg diff "sha256:${diff%% *}" \
    '{ architecture: .info.imageSpec.architecture, os: "linux", config: .info.imageSpec.config,
       rootfs: { type: "layers", diff_ids: [$diff] } }' >config.json
  # Those of Kubernetes' own release are not compressed; what comes from a registry is.
  if [[ $name != */kube-* ]]; then
    gzip -1 "$layer"
    layer=$layer.gz
  fi
  jq -n --arg name "$name" --arg layer "$layer" '[{ Config: "config.json", RepoTags: [$name], Layers: [$layer] }]' \
    >manifest.json
  tar -cf ../archive.tar manifest.json config.json "$layer"
  cd ..
}

cd "$work"
for name in $(own images ls -q | grep -v '^sha256:'); do
  save "$name"
  if [[ $name == */busybox:* ]]; then
    # As in the first versions of kind.
    mv archive.tar "$root/kind/images/busybox.tar"
    continue
  fi
  kinds images import --no-unpack --digests - <archive.tar >/dev/null
  [[ $name != */kube-* ]] || kinds images label "$name" io.cri-containerd.pinned=pinned >/dev/null
done
kill "$daemon"
wait "$daemon" || true

pause=$(own images ls -q | grep /pause:)
sed -i "s|@SANDBOX_IMAGE@|$pause|" "$root/etc/containerd/config.toml"
# What containers begin with, and a hook that shows them the node's product files.
kinds oci spec | jq 'del(.process.rlimits)
  | .hooks.createContainer = [{ path: "/kind/bin/mount-product-files.sh" }]' >"$root/etc/containerd/cri-base.json"
# Of the layers below, nothing of containerd's shows through.
touch "$root/var/lib/containerd/.wh..wh..opq"
chmod -R go+rX "$root/kind" "$root/etc" "$root/usr"
tar -C "$root" -cf "$work/layer.tar" .
