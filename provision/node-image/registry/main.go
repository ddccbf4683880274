// The registry of the distribution project with what a registry on one machine needs: files as its storage, and other
// registries to fetch from. Storage in clouds and authentication are left out, which halves the program.
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/proxy"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
