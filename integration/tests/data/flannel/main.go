// Command flannel is flannel's daemon with its vxlan backend, and a writer of CNI configuration in place of flannel's own
// plug-in: what a test installs where a cluster leaves the pod network to its user.
//
// Flannel's own program has every cloud's backend, one of which needs a module that not every proxy of Go modules has.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
)

const (
	networkConfig = "/etc/kube-flannel/net-conf.json"
	cniDirectory  = "/etc/cni/net.d"
	cniFile       = "10-flannel.conflist"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	subnets, err := kube.NewSubnetManager(ctx, "", "", "flannel.alpha.coreos.com", networkConfig, true)
	if err != nil {
		return err
	}
	config, err := subnets.GetNetworkConfig(ctx)
	if err != nil {
		return err
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	uplink, err := ipmatch.LookupExtIface("", "", "", stack, ipmatch.PublicIPOpts{})
	if err != nil {
		return err
	}
	chosen, err := backend.NewManager(ctx, subnets, uplink).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	network, err := chosen.RegisterNetwork(ctx, &running, config)
	if err != nil {
		return err
	}
	if err := writeCNI(network.Lease().Subnet.ToIPNet(), config.Network.ToIPNet(), network.MTU()); err != nil {
		return err
	}
	if err := subnets.HandleSubnetFile("/run/flannel/subnet.env", config, false, network.Lease().Subnet, network.Lease().IPv6Subnet, network.MTU()); err != nil {
		return err
	}
	log.Printf("subnet %s, MTU %d", network.Lease().Subnet, network.MTU())
	network.Run(ctx)
	running.Wait()
	return nil
}

// writeCNI gives the node's pods a bridge with the subnet that flannel has leased.
func writeCNI(subnet, pods *net.IPNet, mtu int) error {
	type object = map[string]any
	config, err := json.MarshalIndent(object{
		"cniVersion": "0.3.1",
		"name":       "cbr0",
		"plugins": []object{
			{
				"type":             "bridge",
				"bridge":           "cni0",
				"isGateway":        true,
				"isDefaultGateway": true,
				"hairpinMode":      true,
				"mtu":              mtu,
				"ipam": object{
					"type":    "host-local",
					"dataDir": "/run/cni-ipam-state",
					"ranges":  [][]object{{{"subnet": subnet.String()}}},
					"routes":  []object{{"dst": pods.String()}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(cniDirectory, "."+cniFile)
	if err := os.WriteFile(temporary, config, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(cniDirectory, cniFile))
}
