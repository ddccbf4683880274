// Command etcd is go.etcd.io/etcd/server/v3 with two constants changed.
//
// etcd preallocates each segment of its write-ahead log, and the next one: 2 x 64 MB on disk before the first
// key is written. A local cluster's whole history fits in a fraction of that, so segments are 4 MB here; the log
// grows by further segments as it does upstream. The variable is exported upstream for this purpose
// (server/storage/wal/wal.go, SegmentSizeBytes).
//
// A member joins as a learner, and etcd admits one learner at a time unless --max-learners says more. Control planes
// of a local cluster join side by side, so four are admitted here unless the flag is given.
package main

import (
	"os"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

func main() {
	wal.SegmentSizeBytes = 4 * 1000 * 1000
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "-") && !slices.ContainsFunc(os.Args, limitsLearners) {
		os.Args = append(os.Args, "--max-learners=4")
	}
	etcdmain.Main(os.Args)
}

// limitsLearners tells whether an argument is the flag, or names a file that takes the place of all flags.
func limitsLearners(argument string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
	return strings.HasSuffix(name, "max-learners") || name == "config-file" || name == "version"
}
