// Command etcd is go.etcd.io/etcd/server/v3 with one constant lowered; called etcdctl, it is go.etcd.io/etcd/etcdctl/v3.
//
// etcd preallocates each segment of its write-ahead log, and the next one: 2 x 64 MB on disk before the first
// key is written. A local cluster's whole history fits in a fraction of that, so segments are 4 MB here; the log
// grows by further segments as it does upstream. The variable is exported upstream for this purpose
// (server/storage/wal/wal.go, SegmentSizeBytes).
//
// The two share most of their code, so one program for both is little larger than the server alone.
package main

import (
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

func main() {
	if filepath.Base(os.Args[0]) == "etcdctl" {
		ctlv3.MustStart()
		return
	}
	wal.SegmentSizeBytes = 4 * 1000 * 1000
	etcdmain.Main(os.Args)
}
