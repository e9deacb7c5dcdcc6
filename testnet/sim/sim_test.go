package sim

import (
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

func lan(seed uint64, peers int) Config {
	return Config{Seed: seed, Peers: peers, Slots: 1, DelayMin: 500 * time.Microsecond, DelayMax: 3 * time.Millisecond}
}

// checkDone wants the job done, with every result as the program gives it.
func checkDone(t *testing.T, w *World, id protocol.JobID) {
	t.Helper()
	w.Verify(id, protocol.JobDone)
	for _, v := range w.Violations {
		t.Error(v)
	}
}

// checkTwice wants no task to have run twice.
func checkTwice(t *testing.T, w *World) {
	t.Helper()
	w.VerifyOnce()
	for _, v := range w.Violations {
		t.Error(v)
	}
}

func submit(t *testing.T, w *World, p int, change func(*job.Spec)) protocol.JobID {
	t.Helper()
	id, err := w.Submit(w.Peers[p], change)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func report(t *testing.T, w *World, id protocol.JobID) {
	t.Helper()
	t.Logf("virtual time %v, steps %d, messages %v", w.Now(), w.Steps, w.Counts)
	for _, p := range w.Peers {
		if p.up {
			if v, ok := p.View(id); ok && v.Keeper {
				t.Logf("peer %d: state %d %s stages %+v shares %v", p.Index, v.State, v.Reason, v.Stages, len(v.Shares))
			}
		}
	}
}

func TestOnePeerAlone(t *testing.T) {
	w := New(lan(1, 1))
	id := submit(t, w, 0, nil)
	if !w.Run(time.Minute, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatal("not done in a minute")
	}
	checkDone(t, w, id)
	report(t, w, id)
}

func TestFivePeersShareTheWork(t *testing.T) {
	w := New(lan(2, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	if !w.Run(time.Minute, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatal("not done in a minute")
	}
	report(t, w, id)
	w.Run(w.Now()+5*time.Second, nil)
	checkDone(t, w, id)
	checkTwice(t, w)
	v, _ := w.Peers[0].View(id)
	for _, s := range v.Shares {
		t.Logf("%s: %d", s.Peer, s.Tasks)
		if s.Tasks < 20 {
			t.Errorf("a peer ran %d of 200 tasks: less than half its share of 40", s.Tasks)
		}
	}
	if len(v.Shares) != 5 {
		t.Errorf("%d peers ran tasks", len(v.Shares))
	}
}
