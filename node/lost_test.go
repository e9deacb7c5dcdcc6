package node

import (
	"context"
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
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

// A job that only the draining peer keeps is with another when the drain has ended.
func TestDrainPushesSoleCopies(t *testing.T) {
	dir := t.TempDir()
	first := startNode(t, testConfig(t, dir+"/first"))
	jobID := first.submit(api.SubmitRequest{Map: first.program("noop"), Array: ptr(uint64(3)), Replicas: ptr(1)})
	first.await(jobID)
	cfg := testConfig(t, dir+"/second")
	cfg.Slots, cfg.Bootstrap = 0, []string{first.Addrs()[0].String()}
	second := startNode(t, cfg)
	eventually(t, "they know each other", func() bool { return len(second.net.Peers()) == 1 && len(first.net.Peers()) == 1 })
	d, err := first.Drain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Chunks == 0 {
		t.Errorf("%+v: nothing was pushed", d)
	}
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := second.Status(t.Context(), jobID); err != nil || s.State != api.StateDone {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, sum := second.results(jobID, api.ResultsOptions{}); sum.Outputs != 3 {
		t.Errorf("%+v", sum)
	}
}
