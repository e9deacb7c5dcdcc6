package sim

import (
	"bytes"
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
	for _, f := range w.Faults {
		t.Error(f)
	}
	for _, p := range w.Peers {
		if !p.up {
			continue
		}
		v, ok := p.View(id)
		if !ok || !v.Keeper {
			continue
		}
		if v.State != protocol.JobDone {
			t.Fatalf("peer %d: state %d (%s)", p.Index, v.State, v.Reason)
		}
		for i := range v.Stages {
			got, err := p.Results(id, protocol.StageIndex(i))
			if err != nil {
				t.Fatal(err)
			}
			if uint64(len(got)) != v.Stages[i].Tasks {
				t.Fatalf("stage %d: %d results of %d", i, len(got), v.Stages[i].Tasks)
			}
			for k := range got {
				if want := Result(protocol.StageIndex(i), protocol.TaskIndex(k)); !bytes.Equal(got[k].Stdout.Inline, want.Stdout.Inline) {
					t.Fatalf("stage %d task %d: %q", i, k, got[k].Stdout.Inline)
				}
			}
		}
	}
	if !w.Settled(id) {
		t.Error("ledgers differ")
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
	t.Logf("virtual time %v, steps %d, messages %v", w.Now(), w.Steps, w.Messages)
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
