package node

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/ipfs/go-cid"
)

// spoil takes away the files of chunks that this peer has, and has each be looked at.
func (n *testNode) spoil(roots []cid.Cid) {
	n.t.Helper()
	for _, c := range roots {
		path, ok := n.store.Path(c)
		if !ok {
			n.t.Fatalf("%s is not here", c)
		}
		if err := os.Remove(path); err != nil {
			n.t.Fatal(err)
		}
	}
	for _, c := range roots {
		if _, err := n.store.Get(n.t.Context(), c); err == nil {
			n.t.Fatalf("%s is still read", c)
		}
	}
}

// pinned lists what a pin set has.
func (n *testNode) pinned(set string) (list []cid.Cid) {
	n.t.Helper()
	if err := n.store.Pinned(set, func(c cid.Cid) bool { list = append(list, c); return true }); err != nil {
		n.t.Fatal(err)
	}
	return list
}

func (n *testNode) hasAll(roots []cid.Cid) bool {
	return !slices.ContainsFunc(roots, func(c cid.Cid) bool { return !n.store.Has(c) })
}

// check is a line of the doctor's.
func (n *testNode) check(name string) api.Check {
	n.t.Helper()
	checks, err := n.Doctor(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	i := slices.IndexFunc(checks, func(c api.Check) bool { return c.Name == name })
	if i < 0 {
		n.t.Fatalf("the doctor says nothing of %s: %+v", name, checks)
	}
	return checks[i]
}

// Chunks that turn out to be damaged while their peer runs come again from others without anybody's asking: those of a job
// that it keeps, and what its user pinned. The doctor tells, also of what nobody has any more.
func TestDamageWhileRunning(t *testing.T) {
	nodes := startMesh(t, 2, func(i int, cfg *Config) { cfg.Slots = 1 - i })
	first, keeper := nodes[0], nodes[1]
	program := first.program("noop")
	id := first.submit(api.SubmitRequest{Map: program, Array: ptr(uint64(3)), Replicas: ptr(1)})
	first.await(id)
	job, err := parseJob(id)
	if err != nil {
		t.Fatal(err)
	}
	var kept []cid.Cid
	eventually(t, "both have the job with its results", func() bool {
		top := cid.Undef
		if err := keeper.driver.ask(t.Context(), func(m machine) {
			if v, ok := m.View(job); ok {
				top = v.Stages[0].Top
			}
		}); err != nil {
			t.Fatal(err)
		}
		kept = []cid.Cid{job.CID(), cid.MustParse(program.Root), top}
		return top.Defined() && keeper.hasAll(kept) && first.hasAll(kept)
	})
	if c := keeper.check("chunks"); c.Level != api.LevelOK {
		t.Errorf("%+v", c)
	}

	keeper.spoil(kept)
	eventually(t, "the keeper has all of the job again", func() bool { return keeper.hasAll(kept) })
	if c := keeper.check("chunks"); c.Level != api.LevelWarning || !strings.Contains(c.Detail, count(uint64(len(kept)), "chunk")) {
		t.Errorf("%+v", c)
	}
	if s, err := keeper.Status(t.Context(), id); err != nil || s.State != api.StateDone {
		t.Errorf("%+v, %v", s, err)
	}

	if err := keeper.Pin(t.Context(), first.program("burn").Root); err != nil {
		t.Fatal(err)
	}
	pinned := keeper.pinned(userSet)
	keeper.spoil(pinned)
	eventually(t, "the keeper has what was pinned again", func() bool { return keeper.hasAll(pinned) })
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	keeper.spoil(pinned)
	eventually(t, "the doctor names what is lost", func() bool {
		c := keeper.check("chunks")
		return c.Level == api.LevelError && strings.Contains(c.Detail, pinned[0].String())
	})
	if err := keeper.Unpin(t.Context(), pinned[0].String()); err != nil {
		t.Fatal(err)
	}
	if c := keeper.check("chunks"); c.Level != api.LevelWarning {
		t.Errorf("after the pin has gone: %+v", c)
	}
}

// The program of a job whose file is damaged is brought again for the tasks to come, also where the peer does not keep the job.
func TestDamagedProgram(t *testing.T) {
	nodes := startMesh(t, 2, func(i int, cfg *Config) { cfg.Slots = i })
	first, worker := nodes[0], nodes[1]
	program := first.program("noop")
	id := first.submit(api.SubmitRequest{Map: program, Array: ptr(uint64(2)), Replicas: ptr(0)})
	first.await(id)
	job, err := parseJob(id)
	if err != nil {
		t.Fatal(err)
	}
	root := cid.MustParse(program.Root)
	eventually(t, "what the worker used is pinned", func() bool { return slices.Contains(worker.pinned(setOf(job)), root) })
	worker.spoil([]cid.Cid{root})
	eventually(t, "its preparer has forgotten the program", func() bool {
		worker.prep.mu.Lock()
		j := worker.prep.jobs[job]
		worker.prep.mu.Unlock()
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.programs) == 0
	})
}
