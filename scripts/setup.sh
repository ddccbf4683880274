#!/bin/bash
# Installs what a part of the project needs and is not there yet, and checks the tool chains.
# usage: setup.sh build|test|vm|lint|fuzz|bench …
# Exit code 3: the host cannot have it (no apt, or a package that cannot be had).
set -euo pipefail
cd "$(dirname "$0")/.."

packages_for() {
  case $1 in
    # protoc for containerd's gRPC definitions, mmdebstrap for the node image's root, libseccomp for its runc.
    build) echo protobuf-compiler mmdebstrap libseccomp-dev pkg-config gcc libc6-dev binutils make ca-certificates ;;
    # What the tests use to look at the host and to make network namespaces of their own, and shells that complete.
    test) echo iproute2 nftables util-linux bsdutils procps zsh fish ;;
    lint) echo shellcheck ;;
    # libFuzzer is C++.
    fuzz) echo g++ ;;
    # What unpacking is compared with.
    bench) echo tar gzip skopeo umoci ;;
    # The emulator, and what its disks are made with.
    vm) echo qemu-system-x86 e2fsprogs busybox-static cpio mmdebstrap dpkg ca-certificates ;;
    *) echo "setup.sh: no such part: $1" >&2; exit 2 ;;
  esac
}

install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "setup.sh: this is no Debian; install by hand what its packages hold: ${missing[*]}" >&2
    return 3
  fi
  if [ "$(id -u)" != 0 ]; then
    echo "setup.sh: installing packages needs root: apt-get install ${missing[*]}" >&2
    return 3
  fi
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || echo "setup.sh: apt-get update failed; trying with the lists that are here" >&2
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || return 3
}

# at_least TOOL HAVE WANT
at_least() {
  if [ "$(printf '%s\n' "$2" "$3" | sort -V | head -n 1)" != "$3" ]; then
    echo "setup.sh: $1 $2 is too old: $3 or newer is needed" >&2
    exit 1
  fi
}

check_toolchains() {
  local tool want have
  for tool in cargo go; do
    if ! command -v "$tool" >/dev/null; then
      echo "setup.sh: $tool is not installed: https://rustup.rs and https://go.dev/dl tell how" >&2
      exit 1
    fi
  done
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have=$(rustc --version | awk '{print $2}')
  at_least Rust "${have%%-*}" "$want"
  # A newer one than the oldest that a module accepts is fetched by go itself, where it may.
  want=$(sed -n 's/^go //p' provision/node-image/*/go.mod | sort -V | tail -n 1)
  have=$(go env GOVERSION)
  if [ "$(go env GOTOOLCHAIN)" = local ]; then at_least Go "${have#go}" "$want"; fi
}

[ $# -gt 0 ] || { echo "usage: setup.sh build|test|vm|lint|fuzz|bench …" >&2; exit 2; }
packages=()
for part in "$@"; do
  read -ra names <<<"$(packages_for "$part")"
  packages+=("${names[@]}")
done
install_packages "${packages[@]}"
case " $* " in *" build "*) check_toolchains ;; esac
