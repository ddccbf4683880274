// Command etcd is go.etcd.io/etcd/server/v3 before 3.6 with small segments of its write-ahead log: see ../etcd/main.go.
// The package has another place there, and the number of learners cannot be set.
//
// Called etcdctl, it is go.etcd.io/etcd/etcdctl/v3.
package main

import (
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/wal"
)

func main() {
	if filepath.Base(os.Args[0]) == "etcdctl" {
		ctlv3.MustStart()
		return
	}
	wal.SegmentSizeBytes = 4 * 1000 * 1000
	etcdmain.Main(os.Args)
}
