// Command kube-controller-manager is k8s.io/kubernetes/cmd/kube-controller-manager with two defaults raised.
//
// It starts its forty-odd controllers one after another, and each asks the API a few questions first. At the 20 requests
// a second that it allows itself, this takes four seconds in which no pod is admitted and no node can join; at 500 it
// takes one. A local API server has nobody else to serve. The flags are as upstream's, and win when they are given.
package main

import (
	"fmt"
	"os"
	_ "time/tzdata"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	command := app.NewControllerManagerCommand()
	for _, raised := range [][2]string{{"kube-api-qps", "500"}, {"kube-api-burst", "1000"}} {
		flag := command.Flags().Lookup(raised[0])
		if err := flag.Value.Set(raised[1]); err != nil {
			fmt.Fprintf(os.Stderr, "default of --%s: %v\n", raised[0], err)
			os.Exit(1)
		}
		flag.DefValue = raised[1]
	}
	os.Exit(cli.Run(command))
}
