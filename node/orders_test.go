package node

import (
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
)

// A cancel tells who has stopped, and whom nobody has heard: here one that is off.
func TestCancelTellsWhoStopped(t *testing.T) {
	nodes := startMesh(t, 4, func(i int, cfg *Config) {
		if i != 1 {
			cfg.Slots = 0
		}
	})
	job := nodes[0].submit(api.SubmitRequest{Map: nodes[0].contract("loop"), Array: ptr(uint64(3)), Replicas: ptr(3)})
	if a, err := nodes[0].Accepted(t.Context(), job); err != nil || !a.Accepted {
		t.Fatalf("%+v, %v", a, err)
	}
	eventually(t, "a task runs", func() bool { running, _ := nodes[1].runner.levels(); return running == 1 })
	if _, err := nodes[0].Stopped(t.Context(), job); api.KindOf(err) != api.KindConflict {
		t.Errorf("who has stopped a running job: %v", err)
	}
	gone := nodes[3].Peer().String()
	if err := nodes[3].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].Control(t.Context(), job, api.VerbCancel); err != nil {
		t.Fatal(err)
	}
	eventually(t, "those that are there have stopped", func() bool {
		s, err := nodes[0].Stopped(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(s.Missing, []string{gone}) && slices.Contains(s.Stopped, nodes[1].Peer().String()) && len(s.Stopped) == 3
	})
}

// A paused job starts nothing more, a resumed one ends, and a removed one leaves nothing behind.
func TestPauseResumeRemove(t *testing.T) {
	nodes := startMesh(t, 2, func(i int, cfg *Config) { cfg.Slots = i })
	program := nodes[0].program("burn")
	program.Args = []string{"10"}
	job := nodes[0].submit(api.SubmitRequest{Map: program, Array: ptr(uint64(30)), Replicas: ptr(1)})
	order := func(verb api.Verb) api.Summary {
		t.Helper()
		s, err := nodes[0].Control(t.Context(), job, verb)
		if err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		return s
	}
	if s := order(api.VerbPause); s.State != api.StateStalled || s.Reason == "" {
		t.Errorf("paused: %+v", s)
	}
	eventually(t, "nothing runs", func() bool { running, waiting := nodes[1].runner.levels(); return running+waiting == 0 })
	if s, err := nodes[0].Status(t.Context(), job); err != nil || s.State != api.StateStalled || s.Done == s.Tasks {
		t.Errorf("paused: %+v, %v", s, err)
	}
	order(api.VerbResume)
	if s := nodes[0].await(job); s.State != api.StateDone || s.Done != 30 {
		t.Fatalf("resumed: %+v", s)
	}
	order(api.VerbRemove)
	for i, n := range nodes {
		eventually(t, "nothing is kept for the removed job", func() bool { return !n.keepsFor(job) })
		if s, err := n.Status(t.Context(), job); err == nil && s.State == api.StateRunning {
			t.Errorf("peer %d: %+v", i, s)
		}
	}
}

// keepsFor tells whether anything is pinned for a job.
func (n *testNode) keepsFor(job string) (kept bool) {
	n.t.Helper()
	id, err := protocol.ParseJobID(job)
	if err == nil {
		err = n.store.PinSets(func(set string) bool {
			of, ok := jobOfSet(set)
			kept = kept || ok && of == id
			return true
		})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return kept
}

// A peer that only worked for a job keeps nothing for it once it has ended; its keepers do.
func TestWorkersPinsAreReleased(t *testing.T) {
	nodes := startMesh(t, 3, func(i int, cfg *Config) {
		if i == 1 {
			cfg.Slots = 0
		}
	})
	job := nodes[0].submit(api.SubmitRequest{Map: nodes[0].contract("cat"), Array: ptr(uint64(20)), Replicas: ptr(1)})
	nodes[0].await(job)
	keepers := 0
	for _, n := range nodes {
		n.await(job)
		if n.keepsAfter(job) {
			keepers++
		}
	}
	if keepers != 2 {
		t.Errorf("%d peers keep the job, want the submitter's and one more", keepers)
	}
}

// keepsAfter is keepsFor once the peer has let go of what it needs no more.
func (n *testNode) keepsAfter(job string) bool {
	n.t.Helper()
	if err := n.pins.flush(); err != nil {
		n.t.Fatal(err)
	}
	n.releaseJobs()
	return n.keepsFor(job)
}

// A failed job that is retried makes its attempts again, on whatever peer; one that runs or is done is not retried.
func TestRetryRunsAgain(t *testing.T) {
	nodes := startMesh(t, 2, func(i int, cfg *Config) { cfg.Slots = i })
	job := nodes[0].submit(api.SubmitRequest{Map: nodes[0].contract("exit", "7"), Array: ptr(uint64(1)), Replicas: ptr(1), Retries: ptr(0)})
	if s := nodes[0].await(job); s.State != api.StateFailed {
		t.Fatalf("%+v", s)
	}
	for again := range uint64(2) {
		before := nodes[1].runner.count.failed.Load()
		if s, err := nodes[0].Control(t.Context(), job, api.VerbRetry); err != nil {
			t.Fatalf("retry %d: %+v, %v", again, s, err)
		}
		eventually(t, "the task runs again", func() bool { return nodes[1].runner.count.failed.Load() == before+1 })
		if s := nodes[0].await(job); s.State != api.StateFailed {
			t.Fatalf("%+v", s)
		}
	}
	if _, err := nodes[0].Control(t.Context(), nodes[0].done(), api.VerbRetry); api.KindOf(err) != api.KindConflict {
		t.Errorf("retry of a job that is done: %v", err)
	}
}
