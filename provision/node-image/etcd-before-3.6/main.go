// Command etcd is go.etcd.io/etcd/server/v3 before 3.6 with small segments of its write-ahead log: see ../etcd/main.go.
// The package has another place there, and the number of learners cannot be set.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/wal"
)

func main() {
	wal.SegmentSizeBytes = 4 * 1000 * 1000
	etcdmain.Main(os.Args)
}
