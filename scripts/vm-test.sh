#!/bin/sh
# The test inside the virtual machine; see vm.sh. The second disk is the image store, the third this script's own.
set -u
kiln=/payload/kiln
node=it-vm-control-plane

fail() {
  echo "VM-FAILED: $*"
  find /var/lib/kiln/clusters -name '*.log' -exec tail -n 30 {} + 2>/dev/null
  exit 1
}

# What a deleted cluster must not leave, one thing a line.
snapshot() {
  awk '{ print "mount", $5 }' /proc/self/mountinfo
  find /sys/fs/cgroup -type d \( -name 'kiln*' -o -name 'kube*' \) | sed 's/^/cgroup /'
  for link in /sys/class/net/*; do echo "link ${link##*/}"; done
  lsns --noheadings --type net --output NS | sed 's/^/netns /'
  lsns --noheadings --type pid --output NS | sed 's/^/pidns /'
  pgrep --list-name --exact kiln | sed 's/^/process /'
  nft list tables | sed 's/^/nft /'
  find /run/kiln /var/lib/kiln/clusters -mindepth 1 2>/dev/null | sed 's/^/file /' | head -n 50
  for name in net.ipv4.ip_forward kernel.panic kernel.panic_on_oops vm.overcommit_memory; do
    echo "sysctl $name $(sysctl -n $name)"
  done
}

# The store's disk becomes the state root: one file system, so that clusters can share files with the store.
mount /dev/vdb /var/lib/kiln || fail "no second disk"
mkdir /var/lib/kiln/images
for entry in /var/lib/kiln/*; do
  case ${entry##*/} in images | lost+found) ;; *) mv "$entry" /var/lib/kiln/images/ ;; esac
done
rm -rf /var/lib/kiln/images/lost+found
export KUBECONFIG=/run/test-kubeconfig

echo "host: $(uname -r), cgroup $(stat -fc %T /sys/fs/cgroup), $(grep CapEff /proc/self/status)"
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || fail "this host was to have cgroup v2"
$kiln doctor || fail "doctor finds a problem"
snapshot | sort > /run/before

if [ "$(cat /payload/whole)" = 1 ]; then
  $kiln create cluster --name it-vm --wait 30m -v 1 || fail "create"
  $kiln kubectl --name it-vm -- get nodes,pods -A -o wide || fail "kubectl"
else
  KILN_STOP_AFTER=nodes $kiln create cluster --name it-vm -v 1 || fail "create"
fi
[ "$($kiln get nodes --name it-vm)" = "$node" ] || fail "get nodes"

$kiln exec $node -- sh -c 'exit 37'
code=$?
[ $code = 37 ] || fail "exec gave $code in place of 37"
[ "$(echo through | $kiln exec -i $node -- cat)" = through ] || fail "exec -i lost its input"
# A kubelet without a configuration, as here, leaves the system degraded.
$kiln exec $node -- timeout 120 systemctl is-system-running --wait
$kiln exec $node -- systemctl is-active containerd || fail "containerd does not run"
$kiln ps $node | tee /run/ps | grep -q systemd || fail "ps shows no systemd: $(cat /run/ps)"
[ "$($kiln exec $node -- stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || fail "no cgroup v2 in the node"
$kiln exec $node -- mkdir /sys/fs/cgroup/test-of-delegation || fail "the node may make no cgroups"
gateway=$($kiln exec $node -- ip -4 route show default)
[ -n "$gateway" ] || fail "the node has no default route"

$kiln delete cluster --name it-vm || fail "delete"
# The kernel frees network namespaces some time after their last process has ended.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  snapshot | sort > /run/after
  left=$(comm -13 /run/before /run/after)
  [ -n "$left" ] || break
  sleep 1
done
[ -z "$left" ] || fail "left behind:
$left"
grep -q kind-it-vm $KUBECONFIG 2>/dev/null && fail "the kubeconfig still has the cluster"
echo VM-OK
