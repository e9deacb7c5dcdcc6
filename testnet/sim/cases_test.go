package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// accepted runs the world until a job is with as many keepers as it wants.
func accepted(t *testing.T, w *World, id protocol.JobID) {
	t.Helper()
	if !w.Run(w.now+time.Minute, func() bool { v, _ := w.jobPeer(id).View(id); return v.Accepted }) {
		t.Fatal("not accepted in a minute")
	}
}

// jobPeer is the peer that a job was submitted to.
func (w *World) jobPeer(id protocol.JobID) *Peer { return w.byID[w.jobs[id].Manifest.Submitter] }

// keepers are the peers with a durable Keep of a job.
func (w *World) keepers(id protocol.JobID) (list []*Peer) {
	for _, p := range w.Peers {
		if p.disk.kept[id] {
			list = append(list, p)
		}
	}
	return list
}

// endsWell wants the job to be done within a time from now, and all that must hold.
func endsWell(t *testing.T, w *World, id protocol.JobID, limit time.Duration) {
	t.Helper()
	if !w.Run(w.now+limit, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatalf("not done in %v: %s", limit, (&chaos{World: w}).progress(id))
	}
	w.Run(w.now+settling, nil)
	checkDone(t, w, id)
}

// TestCrashAtEveryEffect cuts the power of each peer of a small mesh after its first
// effect, its second, ... until the job ends before that.
func TestCrashAtEveryEffect(t *testing.T) {
	for victim := range 3 {
		crashed := true
		for k := 1; crashed; k += 1 + k/12 {
			cfg := lan(uint64(k), 3)
			cfg.Lazy = 1000
			w := New(cfg)
			w.Peers[victim].DoomAfter(k)
			id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Replicas = 6, 2 })
			crashed = !w.Run(5*time.Second, func() bool { return w.Done(id) }) || w.Counts["fault: crash after an effect"] > 0
			for _, p := range w.Peers {
				p.DoomAfter(0)
				p.Restart()
			}
			if _, ok := w.Peers[0].View(id); !ok {
				w.Peers[0].submit(w.jobs[id]) // the user was told of no job
			}
			if !w.Run(3*time.Minute, func() bool { return w.Done(id) }) {
				report(t, w, id)
				t.Fatalf("peer %d, effect %d: not done", victim, k)
			}
			w.Run(w.now+10*time.Second, nil)
			checkDone(t, w, id)
			if t.Failed() {
				t.Fatalf("peer %d, effect %d", victim, k)
			}
		}
	}
}

// TestKillAfterPageBeforeReceipt loses a keeper's power after it has stored a page and
// before the receipt for it goes out.
func TestKillAfterPageBeforeReceipt(t *testing.T) {
	cfg := lan(40, 6)
	struck := 0
	cfg.Tamper = func(p *Peer, e *market.Effects) {
		for i, m := range e.Send {
			if a, ok := m.Message.(*protocol.ReceiptAnswer); ok && a.Receipt != nil && struck < 3 && p.doomed == 0 {
				struck++
				p.DoomAfter(len(e.Blocks) + len(e.Persist) + 1 + i) // its sync, and not this message
				return
			}
		}
	}
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 120 })
	for at := time.Second; at < 20*time.Second; at += 3 * time.Second {
		w.After(at, func() {
			for _, p := range w.Peers {
				p.Restart()
			}
		})
	}
	w.Run(20*time.Second, nil)
	if struck == 0 || w.Counts["fault: crash after an effect"] == 0 {
		t.Error("no keeper was about to send a receipt")
	}
	endsWell(t, w, id, 2*time.Minute)
}

// TestSubmitterOffBetweenKeeps takes the submitter's peer away when one keeper of three has signed.
func TestSubmitterOffBetweenKeeps(t *testing.T) {
	for n := range 3 {
		w := New(lan(uint64(41+n), 8))
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 60 })
		w.Run(10*time.Second, func() bool { return len(w.keepers(id)) >= 2+n })
		w.Peers[0].Kill()
		w.Run(w.now+5*time.Second, nil)
		endsWell(t, w, id, 5*time.Minute)
	}
}

// TestGrantToPeerThatLeft lets the bidder go while the grant is on its way.
func TestGrantToPeerThatLeft(t *testing.T) {
	cfg := lan(44, 5)
	var gone []*Peer
	cfg.Tamper = func(p *Peer, e *market.Effects) {
		for _, m := range e.Send {
			if _, ok := m.Message.(*protocol.Grant); ok && len(gone) < 2 {
				q := p.w.byID[m.To]
				gone = append(gone, q)
				p.w.After(0, q.Kill)
			}
		}
	}
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 100 })
	w.Run(time.Second, nil)
	if len(gone) == 0 {
		t.Fatal("nothing was granted")
	}
	endsWell(t, w, id, time.Minute)
}

// TestAllReceiptGiversLost kills for good every keeper that signed for the first result
// before it is sealed: its worker still has it.
func TestAllReceiptGiversLost(t *testing.T) {
	w := New(lan(45, 9))
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 60 })
	accepted(t, w, id)
	var page *protocol.Done
	var worker protocol.PeerID
	w.Run(time.Minute, func() bool {
		for _, r := range w.Peers[0].machine.Records(id) {
			if b, ok := r.Body.(*protocol.Done); ok {
				page, worker = b, r.Signer
			}
		}
		return page != nil
	})
	for _, p := range w.Peers {
		if p.ID() != worker && p.disk.blocks[page.Page.KeyString()] != nil {
			delete(p.disk.blocks, page.Page.KeyString())
			p.Kill()
		}
	}
	w.Run(w.now+30*time.Minute, func() bool { return w.Done(id) })
	w.Run(w.now+settling, nil)
	checkDone(t, w, id)
}

// rot takes a block away from every disk.
func (w *World) rot(c cid.Cid) {
	w.inv.rotten = true
	for _, p := range w.Peers {
		delete(p.disk.blocks, c.KeyString())
	}
}

// TestResultsLost rots every disk once the first stage is sealed, and once the job is done:
// what nobody has any more is computed again, and is the same.
func TestResultsLost(t *testing.T) {
	for _, when := range []string{"sealed", "done"} {
		w := New(lan(61, 6))
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 60; reduce(4)(s) })
		w.Run(5*time.Minute, func() bool {
			v, _ := w.Peers[0].View(id)
			return v.State == protocol.JobDone || when == "sealed" && v.Stages[0].Top.Defined()
		})
		w.Run(w.now+settling, func() bool { return when == "sealed" })
		for _, p := range w.Peers {
			for _, rec := range p.machine.Records(id) {
				switch b := rec.Body.(type) {
				case *protocol.Done:
					w.rot(b.Page)
				case *protocol.Seal:
					w.rot(b.Root)
					for _, page := range p.machine.Pages(id, b.Stage, 0) {
						w.rot(page)
					}
				}
			}
			p.Kill()
		}
		for _, p := range w.Peers {
			p.Restart()
		}
		if p, err := w.Peers[0].Results(id, 0); err == nil {
			t.Fatalf("%s: %d results are still there", when, len(p))
		}
		w.Run(w.now+20*time.Minute, nil)
		checkDone(t, w, id)
		if w.Counts["record: Reopen"] == 0 {
			t.Errorf("%s: nothing was reopened", when)
		}
	}
}

// TestSurplusKeepers parts a mesh for so long that each side finds keepers of its own. Once it
// is one again, those that are too many leave, and their chunks go: four copies stay.
func TestSurplusKeepers(t *testing.T) {
	for seed := uint64(62); seed < 65; seed++ {
		w := New(lan(seed, 10))
		w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 5 * time.Second }
		id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Replicas = 200, 3 })
		accepted(t, w, id)
		w.Partition(func(i int) int { return i % 2 })
		w.Run(w.now+70*time.Second, nil)
		if n := len(w.keepers(id)); n < 5 {
			t.Fatalf("%d keepers while the mesh is apart", n)
		}
		w.Partition(nil)
		endsWell(t, w, id, 10*time.Minute)
		w.Run(w.now+5*time.Minute, nil)
		v, _ := w.jobPeer(id).View(id)
		if len(v.Keepers) != 4 {
			t.Errorf("%d keepers, want 4", len(v.Keepers))
		}
		copies := 0
		for _, p := range w.Peers {
			if p.disk.pins[id][v.Stages[0].Top.KeyString()] {
				copies++
			}
		}
		if copies != 4 {
			t.Errorf("%d copies of the results, want 4", copies)
		}
	}
}

// TestJournalRolledBack brings a keeper, a worker and the submitter's peer back with a journal
// that lacks its newest records, as of a backup.
func TestJournalRolledBack(t *testing.T) {
	for victim := range 4 {
		for _, k := range []int{1, 5, 30, 1 << 20} {
			w := New(lan(50, 6))
			id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
			w.Run(2*time.Second, nil)
			w.Peers[victim].Rollback(k)
			w.Run(w.now+time.Second, nil)
			w.Peers[victim].Restart()
			endsWell(t, w, id, 3*time.Minute)
			if t.Failed() {
				t.Fatalf("peer %d lost %d records", victim, k)
			}
		}
	}
}

// TestSuspend has each peer asleep for a while: its work is done elsewhere, and when it
// wakes up it goes by what is known by then.
func TestSuspend(t *testing.T) {
	for victim := range 4 {
		w := New(lan(51, 5))
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 400 })
		w.After(time.Second, func() { w.Peers[victim].Suspend(10 * time.Second) })
		w.Run(2*time.Second, nil)
		endsWell(t, w, id, time.Minute)
	}
}

// TestClaimAtHighestEpoch has a member claim tasks at an epoch above which there is none.
func TestClaimAtHighestEpoch(t *testing.T) {
	w := New(lan(52, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	w.Run(time.Second, nil)
	p := w.Peers[3]
	ref := protocol.StageRef{Job: id, Key: w.jobs[id].InputKey(0, nil)}
	rec, err := protocol.SignRecord(p.signer, &protocol.Segment{
		StageRef: ref, Range: protocol.Range{Lo: 50, Hi: 150}, Epoch: protocol.MaxEpoch, Holder: p.ID(), Cause: protocol.CauseAdopt,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range w.Peers[:3] {
		q.step(market.Received{From: p.ID(), Message: &protocol.News{Job: id, Records: []protocol.Record{rec}}})
	}
	p.Kill()
	endsWell(t, w, id, 3*time.Minute)
}

// TestAllKeepersLeave has all keepers leave at once; the members that stay go on.
func TestAllKeepersLeave(t *testing.T) {
	w := New(lan(53, 10))
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 100 })
	accepted(t, w, id)
	w.Run(w.now+2*time.Second, nil)
	for _, p := range w.keepers(id) {
		p.step(market.Leaving{})
		w.After(9*time.Second, p.Kill)
	}
	w.Run(w.now+10*time.Second, nil)
	endsWell(t, w, id, 10*time.Minute)
}

// TestAllKeepersLost loses all keepers at once, for good.
func TestAllKeepersLost(t *testing.T) {
	w := New(lan(54, 10))
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 100 })
	accepted(t, w, id)
	w.Run(w.now+2*time.Second, nil)
	for _, p := range w.keepers(id) {
		p.Kill()
	}
	endsWell(t, w, id, 10*time.Minute)
}

// TestAllTasksFail wants a job of which every task fails to end as failed, soon, with a
// ledger in bounds, whatever its size.
func TestAllTasksFail(t *testing.T) {
	for _, n := range []uint64{10_000, 100_000, 1_000_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			cfg := lan(55, 5)
			cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 10 * time.Millisecond }
			cfg.Fail = func(int, protocol.StageIndex, protocol.TaskIndex) bool { return true }
			w := New(cfg)
			id := submit(t, w, 0, func(s *job.Spec) { s.Array = n })
			if !w.Run(2*time.Minute, func() bool { return w.Done(id) }) {
				report(t, w, id)
				t.Fatal("not failed in two minutes")
			}
			w.Run(w.now+settling, nil)
			w.Verify(id, protocol.JobFailed)
			for _, p := range w.Peers {
				w.inv.ledger(p, id)
			}
			for _, v := range w.Violations {
				t.Error(v)
			}
			t.Logf("failed after %v, %d attempts, %d steps", w.now-settling, w.Counts["record: Failed"], w.Steps)
		})
	}
}

// TestTaskThatKillsItsHost wants a task that kills whoever runs it to use up its attempts, and
// to kill few peers beside those that count, also where the dead come back late.
func TestTaskThatKillsItsHost(t *testing.T) {
	for _, test := range []struct {
		slots int
		back  time.Duration
		most  int // peers that it may kill: retries + 1 count, one or two before it is suspected
	}{{1, time.Second, 6}, {4, time.Second, 6}, {1, 20 * time.Second, 15}, {4, 20 * time.Second, 15}} {
		cfg := lan(60, 10)
		cfg.Slots = test.slots
		cfg.Kills = func(_ protocol.StageIndex, i protocol.TaskIndex) bool { return i == 7 }
		w := New(cfg)
		var revive func()
		revive = func() {
			for _, p := range w.Peers {
				p.Restart()
			}
			w.After(test.back, revive)
		}
		w.After(test.back, revive)
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 400 })
		if !w.Run(5*time.Minute, func() bool { return w.Done(id) }) {
			report(t, w, id)
			t.Fatal("not failed")
		}
		w.Run(w.now+settling, nil)
		w.Verify(id, protocol.JobFailed)
		for _, v := range w.Violations {
			t.Error(v)
		}
		if v, _ := w.Peers[0].View(id); v.Reason != "stage 0 task 7: meshd died while it ran alone" {
			t.Errorf("failed with %q", v.Reason)
		}
		if n := w.Counts["fault: task kills its host"]; n < 5 || n > test.most {
			t.Errorf("%d slots, back after %v: %d deaths, want 5 to %d", test.slots, test.back, n, test.most)
		}
	}
}

// TestRestartStorm has all peers go and come back at the same moment, again and again.
func TestRestartStorm(t *testing.T) {
	w := New(lan(58, 20))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 1000 })
	accepted(t, w, id)
	for at := time.Second; at < 20*time.Second; at += 4 * time.Second {
		for _, p := range w.Peers {
			w.After(at, p.CutPower)
			w.After(at+time.Second, p.Restart)
		}
	}
	w.Run(w.now+21*time.Second, nil)
	endsWell(t, w, id, 2*time.Minute)
}

// TestProbedBeforeReleased loses a worker's beats for a while: it answers a probe, so it
// keeps what it holds, and no task runs twice.
func TestProbedBeforeReleased(t *testing.T) {
	cfg := lan(59, 5)
	cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 8 * time.Second }
	cfg.Tamper = func(p *Peer, e *market.Effects) {
		if p.Index != 3 || p.w.now < time.Second || p.w.now > 5500*time.Millisecond {
			return
		}
		e.Send = slices.DeleteFunc(e.Send, func(m market.Envelope) bool { _, beat := m.Message.(*protocol.Beat); return beat })
	}
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 10 })
	endsWell(t, w, id, time.Minute)
	checkTwice(t, w)
	if n := w.Counts["record: Segment release for"]; n > 0 || w.Counts["effect: probe"] == 0 {
		t.Errorf("%d ranges released, %d probes: want none released, and a probe", n, w.Counts["effect: probe"])
	}
}

// TestKeepersReplaced loses the keepers one by one, for good, while the job runs and after
// it has ended: there are always enough again.
func TestKeepersReplaced(t *testing.T) {
	w := New(lan(69, 12))
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 3 * time.Second }
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	accepted(t, w, id)
	lose := func() {
		for _, p := range w.keepers(id) {
			if p.up {
				p.Kill()
				break
			}
		}
		w.Run(w.now+90*time.Second, nil)
		live := 0
		for _, p := range w.keepers(id) {
			if p.up {
				live++
			}
		}
		if live < 3 {
			t.Fatalf("%d keepers %v after one was lost", live, 90*time.Second)
		}
	}
	lose()
	lose()
	endsWell(t, w, id, 10*time.Minute)
	lose()
	lose()
	w.Run(w.now+settling, nil)
	w.VerifyCopies(id)
	checkDone(t, w, id)
}

// TestCompacted has a keeper write its journal anew and restart: it is a keeper still.
func TestCompacted(t *testing.T) {
	w := New(lan(71, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	accepted(t, w, id)
	for _, p := range w.keepers(id) {
		p.disk.compact(p.machine.Entries())
		p.CutPower()
	}
	w.Run(w.now+time.Second, nil)
	for _, p := range w.Peers {
		p.Restart()
	}
	endsWell(t, w, id, time.Minute)
}

// TestStrangers has somebody without authority sign records of all kinds.
func TestStrangers(t *testing.T) {
	c := &chaos{World: New(lan(73, 6)), dice: rand.New(rand.NewPCG(73, 0))}
	c.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	id := submit(t, c.World, 0, func(s *job.Spec) { s.Array = 200 })
	c.jobs = []*trial{{id: id}}
	c.strangers()
	c.Run(stormTime, nil)
	if n := c.Counts["fault: stranger"]; n != 20 {
		t.Errorf("%d lies were told", n)
	}
	endsWell(t, c.World, id, time.Minute)
}
