// Command etcd is go.etcd.io/etcd/server/v3 with one constant lowered.
//
// etcd preallocates each segment of its write-ahead log, and the next one: 2 x 64 MB on disk before the first
// key is written. A local cluster's whole history fits in a fraction of that, so segments are 4 MB here; the log
// grows by further segments as it does upstream. The variable is exported upstream for this purpose
// (server/storage/wal/wal.go, SegmentSizeBytes).
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

func main() {
	wal.SegmentSizeBytes = 4 * 1000 * 1000
	etcdmain.Main(os.Args)
}
