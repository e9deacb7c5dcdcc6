package node

import (
	"context"
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/ipfs/go-cid"
)

// A task that lacks input is given back with the chunk that nobody serves.
func TestMissingInputIsNamed(t *testing.T) {
	r := &runner{log: quiet()}
	run := &task{Run: market.Run{Job: &job.Signed{}}, ctx: context.Background()}
	lacks := cid.MustParse("bafkreigt7fxwlz6bke2esxzyracz367gjbdyrt354zbuukmm3i2k7jp3um")
	e := r.unable(run, fmt.Errorf("node: input: %w", &chunkstore.MissingError{Chunks: []cid.Cid{lacks}, Total: 1}))
	if e.Outcome != market.OutcomeReleased || e.Missing != lacks {
		t.Errorf("%+v", e)
	}
	if e = r.unable(run, chunkstore.ErrQuota); e.Missing.Defined() {
		t.Errorf("for want of room: %+v", e)
	}
}
