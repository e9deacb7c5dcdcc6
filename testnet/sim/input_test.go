package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// even wants every group of an input with R peers beside the submitter's.
func even(t *testing.T, w *World, id protocol.JobID) {
	t.Helper()
	w.VerifyGroups(id)
	for _, v := range w.Violations {
		t.Fatal(v)
	}
}

// TestInputIsSpread wants the groups of an input with different peers, each with its part,
// and tasks where their input is.
func TestInputIsSpread(t *testing.T) {
	cfg := lan(70, 5)
	w := New(cfg)
	id := submit(t, w, 0, withInput(200, 40, 1))
	accepted(t, w, id)
	for _, p := range w.Peers[1:] {
		if n := p.keeps(id); n != 10 {
			t.Errorf("peer %d keeps %d groups of 40, want 10", p.Index, n)
		}
	}
	endsWell(t, w, id, time.Minute)
	even(t, w, id)
	checkTwice(t, w)
	for _, p := range w.Peers {
		if v, _ := p.View(id); v.Copies != 1 || !v.Accepted {
			t.Errorf("peer %d: %d copies, accepted %v", p.Index, v.Copies, v.Accepted)
		}
	}
}

// TestInputIsRunWhereItIs counts the tasks that run at a peer without their input.
func TestInputIsRunWhereItIs(t *testing.T) {
	for seed := range uint64(5) {
		cfg := lan(seed, 8)
		away, ran := 0, 0
		var w *World
		cfg.Tamper = func(p *Peer, e *market.Effects) {
			for _, r := range e.Run {
				ran++
				if c := input(r.Job, r.Job.Manifest.GroupOf(r.Stage, r.Index)); !p.disk.pins[r.Job.ID][c.KeyString()] {
					away++
				}
			}
		}
		w = New(cfg)
		id := submit(t, w, 0, withInput(400, 64, 1))
		endsWell(t, w, id, time.Minute)
		t.Logf("%d of %d runs away from their input", away, ran)
		if away > ran/8 {
			t.Errorf("seed %d: %d of %d runs away from their input", seed, away, ran)
		}
	}
}

// TestInputWithoutRoom wants a job that no peer but its submitter's has room for to be
// accepted and done.
func TestInputWithoutRoom(t *testing.T) {
	cfg := lan(71, 5)
	cfg.Room = map[int]int{1: 3, 2: 9, 3: 7, 4: 8}
	w := New(cfg)
	id := submit(t, w, 0, withInput(100, 20, 1))
	if !w.Run(5*time.Minute, func() bool { v, _ := w.Peers[0].View(id); return v.Accepted }) {
		t.Fatal("not accepted")
	}
	w.Peers[0].Kill()
	endsWell(t, w, id, 5*time.Minute)
}

// TestInputKeepersReplaced takes every peer but one away for good, one after another.
func TestInputKeepersReplaced(t *testing.T) {
	for _, replicas := range []int{1, 2, 3} {
		cfg := lan(uint64(72+replicas), 8)
		cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 5 * time.Second }
		w := New(cfg)
		id := submit(t, w, 0, withInput(200, 20, replicas))
		accepted(t, w, id)
		for i := 0; i < 5; i++ {
			if i > 0 {
				even(t, w, id)
			}
			if replicas == 1 { // one copy is lost with its peer: it has to leave
				w.Peers[i].step(market.Leaving{ForGood: true})
				if !w.Run(w.now+time.Minute, func() bool { return !w.Peers[i].machine.Busy() }) {
					t.Fatalf("peer %d is busy leaving", i)
				}
			}
			w.Peers[i].Kill()
		}
		endsWell(t, w, id, 2*time.Hour)
		even(t, w, id)
	}
}

// TestInputKeeperNeverComesBack has all peers stop after a job is done, and all but one of those that keep parts of its input
// start again: they never met that one, and find out all the same that others have to keep those in its place.
func TestInputKeeperNeverComesBack(t *testing.T) {
	w := New(lan(74, 8))
	id := submit(t, w, 0, withInput(64, 9, 1))
	until(t, w, id, time.Minute)
	w.Run(w.now+10*time.Second, nil)
	var away *Peer
	for _, p := range w.Peers[1:] {
		if v, ok := p.View(id); ok && v.Keeps != 0 && !v.Keeper {
			away = p
		}
	}
	for _, p := range w.Peers {
		p.Kill()
	}
	for _, p := range w.Peers {
		if p != away {
			p.Restart()
		}
	}
	even(t, w, id)
}

// TestInputLost wants a job whose input is away to say so, and to go on when it is back.
func TestInputLost(t *testing.T) {
	cfg := lan(76, 6)
	cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	w := New(cfg)
	id := submit(t, w, 0, withInput(200, 20, 1))
	accepted(t, w, id)
	w.Peers[0].Kill()
	w.Run(w.now+time.Second, nil)
	lost := 0
	for i, p := range w.Peers { // one that keeps input alone
		if v, ok := p.View(id); p.up && ok && v.Keeps != 0 && !v.Keeper {
			lost = i
		}
	}
	w.Peers[lost].Kill()
	w.Run(w.now+5*time.Minute, nil)
	why := ""
	for _, p := range w.Peers {
		if v, ok := p.View(id); p.up && ok && v.Keeper {
			why += v.Reason
		}
	}
	if !strings.Contains(why, "nobody serves chunk") || !strings.Contains(why, w.Peers[lost].ID().String()) {
		t.Errorf("nobody says what is missing and who had it: %q", why)
	}
	w.Peers[lost].Restart()
	endsWell(t, w, id, 10*time.Minute)
	even(t, w, id)
}

// TestInputAfterPartition wants what two sides have copied meanwhile to go again.
func TestInputAfterPartition(t *testing.T) {
	for seed := range uint64(5) {
		w := New(lan(80+seed, 8))
		id := submit(t, w, 0, withInput(100, 20, 2))
		accepted(t, w, id)
		w.Partition(func(i int) int { return i / 4 })
		w.Run(w.now+3*time.Minute, nil)
		w.Partition(nil)
		w.Run(w.now+2*time.Minute, nil)
		endsWell(t, w, id, 10*time.Minute)
		even(t, w, id)
	}
}

// TestInputKeepersAreTold wants who keeps input alone, without a slot, to hear of the end of a
// job and of its time.
func TestInputKeepersAreTold(t *testing.T) {
	cfg := lan(90, 6)
	cfg.Idle = map[int]bool{2: true, 3: true, 4: true, 5: true}
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) {
		withInput(100, 20, 1)(s)
		s.Retention = time.Hour
	})
	endsWell(t, w, id, 10*time.Minute)
	w.Run(w.now+2*time.Minute, nil)
	for _, p := range w.Peers {
		if v, ok := p.View(id); !ok || v.State != protocol.JobDone {
			t.Errorf("peer %d does not know that the job is done", p.Index)
		}
	}
	w.Run(w.now+2*time.Hour, nil)
	for _, p := range w.Peers {
		if n := len(p.disk.pins[id]); n > 0 {
			t.Errorf("peer %d still keeps %d blocks of a job that is over", p.Index, n)
		}
	}
}

// TestInputKeepersHandOver has some of those that keep parts of an input find that they have no
// room for it: others keep them in their place.
func TestInputKeepersHandOver(t *testing.T) {
	w := New(lan(91, 10))
	id := submit(t, w, 0, withInput(100, 30, 1))
	accepted(t, w, id)
	crowded := w.Peers[1:6]
	for _, p := range crowded {
		p.step(market.HandOver{Jobs: []protocol.JobID{id}})
	}
	gone := func() bool {
		for _, p := range crowded {
			if v, ok := p.View(id); ok && (v.Keeps != 0 || v.Going) {
				return false
			}
		}
		return true
	}
	if !w.Run(w.now+3*time.Minute, gone) {
		t.Fatal("who has no room still keeps a part of the job")
	}
	endsWell(t, w, id, 10*time.Minute)
	for g := range 30 {
		if n := w.groupCopies(id, g); n < 1 {
			t.Errorf("group %d is with nobody but its submitter", g)
		}
	}
	for _, p := range crowded {
		if n := p.keeps(id); n > 0 {
			t.Errorf("peer %d still has %d groups", p.Index, n)
		}
	}
}

// TestInputDamaged has a peer that keeps input alone lose all its blocks: it gets them again.
func TestInputDamaged(t *testing.T) {
	w := New(lan(92, 6))
	id := submit(t, w, 0, withInput(100, 20, 1))
	accepted(t, w, id)
	w.inv.rotten = true
	for _, p := range w.Peers[1:] {
		if v, _ := p.View(id); !v.Keeper {
			clear(p.disk.blocks)
			p.step(market.Damaged{Job: id})
			break
		}
	}
	w.Run(w.now+time.Minute, nil)
	w.inv.rotten = false
	endsWell(t, w, id, 10*time.Minute)
	even(t, w, id)
}
