#!/bin/bash
# Runs the binary on a host that is unlike a container: cgroup v2, systemd, all capabilities, kernel modules. It is
# Debian 12 with its cloud kernel under QEMU, without KVM (which CI rarely has; KILN_VM_ACCEL=kvm uses it).
# usage: vm.sh KILN
# A node comes up, is entered and deleted, and nothing is left. The last line is VM-OK, VM-FAILED or VM-SKIPPED.
# KILN_VM_WHOLE=1 boots a whole cluster, which takes a quarter of an hour. KILN_VM_CACHE keeps the disks.
# The node image is taken from the state root (KILN_ROOT).
set -euo pipefail

kiln=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
root=${KILN_ROOT:-/var/lib/kiln}
cache=${KILN_VM_CACHE:-/var/cache/kiln/vm}
whole=${KILN_VM_WHOLE:-0}
if [ "$whole" = 1 ]; then limit=${KILN_VM_TIMEOUT:-3600}; else limit=${KILN_VM_TIMEOUT:-900}; fi

skip() { echo "VM-SKIPPED: $*"; exit 0; }
fail() { echo "VM-FAILED: $*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || skip "only x86-64 is set up"
[ "$(id -u)" = 0 ] || skip "making the guest's disks needs root"
[ -f "$root/images/index.json" ] || fail "no node image in $root: run make node-image"
mkdir -p "$cache"
cache=$(realpath "$cache")
work=$(mktemp -d "$cache/run.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The kernel, as a package that is unpacked but not installed.
if [ ! -d "$cache/kernel" ]; then
  cloud_kernel() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2}'; }
  package=$(cloud_kernel)
  # A host that was just made has no package lists.
  [ -n "$package" ] || { apt-get update -qq || true; package=$(cloud_kernel); }
  [ -n "$package" ] || skip "no cloud kernel among the packages of this host"
  mkdir "$work/package"
  # The sandbox user of apt cannot write here, which it only warns about.
  (cd "$work/package" && apt-get download -qq "$package" 2>/dev/null) || skip "$package cannot be downloaded"
  dpkg -x "$work"/package/*.deb "$work/kernel"
  mv "$work/kernel" "$cache/kernel"
fi
kernel=$(echo "$cache"/kernel/boot/vmlinuz-*)
version=${kernel##*/vmlinuz-}

# The initramfs loads what reading the disk needs and goes on from there.
initramfs() {
  local modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk" module
  mkdir -p "$1"/{bin,lib,dev,proc,new}
  cp /bin/busybox "$1/bin/"
  for module in $modules; do # in the order in which they depend on each other
    cp "$(find "$cache/kernel/lib/modules" -name "$module.ko" | head -n 1)" "$1/lib/"
  done
  cat > "$1/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for module in $modules; do /bin/busybox insmod /lib/\$module.ko; done
# The disk appears a moment after its driver.
i=0; while [ ! -b /dev/vda ] && [ \$i -lt 100 ]; do /bin/busybox sleep 0.1; i=\$((i+1)); done
/bin/busybox mount -t ext4 /dev/vda /new && exec /bin/busybox switch_root /new /sbin/init
/bin/busybox poweroff -f
INIT
  chmod +x "$1/init"
  (cd "$1" && find . | cpio -o -H newc --quiet | gzip -1)
}

# disk FILE MEGABYTES DIRECTORY: a file system that holds what the directory does.
disk() {
  truncate -s "$2M" "$1"
  mkfs.ext4 -q -m 0 -d "$3" "$1"
}

# The guest: a small Debian that runs the test on its third disk and goes off. Made again when this recipe changes.
guest() {
  echo "making the guest's disk (once)"
  mmdebstrap --quiet --variant=minbase \
    --include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,nftables,procps,util-linux,ca-certificates \
    bookworm "$1"
  mkdir -p "$1/lib/modules" "$1/payload" "$1/var/lib/kiln"
  cp -a "$cache/kernel/lib/modules/$version" "$1/lib/modules/"
  chroot "$1" depmod "$version"
  echo kiln-vm > "$1/etc/hostname"
  printf '127.0.0.1 localhost kiln-vm\n' > "$1/etc/hosts"
  printf 'nameserver 10.0.2.3\n' > "$1/etc/resolv.conf"
  # The bridges and veths of clusters are not for the host's network manager.
  printf '[Match]\nDriver=virtio_net\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' \
    > "$1/etc/systemd/network/uplink.network"
  cat > "$1/etc/systemd/system/payload.service" <<'UNIT'
[Unit]
Description=The test on the third disk
After=network.target systemd-networkd.service
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'mount -o ro /dev/vdc /payload && sh /payload/test; systemctl poweroff --no-block'
[Install]
WantedBy=multi-user.target
UNIT
  chroot "$1" systemctl enable --quiet payload.service systemd-networkd.service
  # A login on the console would take it away from the test.
  chroot "$1" systemctl mask --quiet serial-getty@ttyS0.service
}

key_guest=$({ echo "$version"; sed -n '/^guest()/,/^}/p' "$0"; } | sha256sum | cut -c 1-16)
if [ ! -f "$cache/guest-$key_guest.img" ]; then
  rm -f "$cache"/guest-*.img
  guest "$work/guest"
  disk "$work/guest.img" 2048 "$work/guest"
  mv "$work/guest.img" "$cache/guest-$key_guest.img"
  rm -rf "$work/guest"
fi

key=$(sha256sum < "$root/images/index.json" | cut -c 1-16)
if [ ! -f "$cache/images-$key.img" ]; then
  rm -f "$cache"/images-*.img
  echo "copying the image store to a disk (once per node image)"
  # Room for what a node adds, and for what small files waste.
  disk "$work/images.img" $(($(du -sm "$root/images" | cut -f 1) * 3 / 2 + 3072)) "$root/images"
  mv "$work/images.img" "$cache/images-$key.img"
fi

mkdir "$work/payload"
cp "$kiln" "$work/payload/kiln"
cp "$here/vm-test.sh" "$work/payload/test"
echo "$whole" > "$work/payload/whole"
disk "$work/payload.img" $(($(du -sm "$work/payload" | cut -f 1) + 32)) "$work/payload"
mkdir "$work/initramfs"
initramfs "$work/initramfs" > "$work/initramfs.gz"

echo "booting Linux $version, cgroup v2, emulated"
drive() { echo "file=$1,if=virtio,format=raw,snapshot=on"; }
# What the guest writes goes to temporary files beside the disks, not into them.
TMPDIR=$work timeout "$limit" qemu-system-x86_64 \
  -machine q35 -accel "${KILN_VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m "${KILN_VM_MEMORY:-4096}" \
  -display none -monitor none -serial stdio -no-reboot \
  -kernel "$kernel" -initrd "$work/initramfs.gz" \
  -append "console=ttyS0 root=/dev/vda rw quiet loglevel=4 panic=-1 systemd.show_status=false" \
  -drive "$(drive "$cache/guest-$key_guest.img")" -drive "$(drive "$cache/images-$key.img")" \
  -drive "$(drive "$work/payload.img")" \
  -nic user,model=virtio-net-pci,restrict=on \
  </dev/null 2>&1 | tr -d '\r' | tee "$work/console.log" || true

# The guest cannot give its exit code to the host, so its last word counts.
grep -q '^VM-OK$' "$work/console.log" && exit 0
grep -q '^VM-FAILED' "$work/console.log" && exit 1
fail "the guest did not finish within $limit s, or did not start: see the console above"
