package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
)

// wantViolation wants an invariant to have been seen broken.
func wantViolation(t *testing.T, w *World, name string) {
	t.Helper()
	for _, v := range w.Violations {
		if strings.HasPrefix(v.Error(), name+": ") {
			return
		}
	}
	t.Errorf("%s was broken, and nobody noticed: %v", name, w.Violations)
}

// broken is a world with a job of 60 tasks whose peers' effects are tampered with.
func broken(t *testing.T, tamper func(*Peer, *market.Effects)) (*World, protocol.JobID) {
	cfg := lan(5, 5)
	cfg.Tamper = tamper
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 60 })
	return w, id
}

// other replaces the machine of a peer behind the world's back, by one of other entries.
func other(t *testing.T, p *Peer, entries []market.Entry) {
	t.Helper()
	cfg := market.DefaultConfig()
	cfg.Signer, cfg.Codec, cfg.Mesh = p.signer, protocol.Codec{Verifier: insecure.Verifier{}}, "sim"
	cfg.Incarnation, cfg.Slots, cfg.Memory = 1, 1, 16<<30
	m, err := market.New(cfg, p.instant(), entries)
	if err != nil {
		t.Fatal(err)
	}
	p.machine = m
}

func TestBreaksI1(t *testing.T) {
	w, id := broken(t, nil)
	w.Run(time.Second, nil)
	other(t, w.Peers[0], nil)
	w.Verify(id, protocol.JobDone)
	wantViolation(t, w, "I1")
}

func TestBreaksI1Undone(t *testing.T) {
	w, id := broken(t, nil)
	until(t, w, id, time.Minute)
	w.inv.view(w.Peers[0], id)
	other(t, w.Peers[0], w.Peers[0].disk.journal[:2])
	w.inv.view(w.Peers[0], id)
	wantViolation(t, w, "I1")
}

// TestBreaksI2 has a keeper forget who holds what.
func TestBreaksI2(t *testing.T) {
	w, id := broken(t, nil)
	w.Run(90*time.Millisecond, nil) // before any result
	p := w.Peers[0]
	w.inv.ledger(p, id)
	other(t, p, p.disk.journal[:2])
	w.inv.ledger(p, id)
	wantViolation(t, w, "I2")
}

func TestBreaksI2Standstill(t *testing.T) {
	c := &chaos{World: New(lan(5, 3))}
	c.cfg.Unable = func(int, protocol.StageIndex, protocol.TaskIndex) bool { return true }
	c.ends(&trial{id: submit(t, c.World, 0, nil), want: protocol.JobDone})
	wantViolation(t, c.World, "I2")
}

// TestBreaksI3 has a keeper forget results.
func TestBreaksI3(t *testing.T) {
	w, id := broken(t, nil)
	until(t, w, id, time.Minute)
	p := w.Peers[0]
	w.inv.ledger(p, id)
	other(t, p, p.disk.journal[:2])
	w.inv.ledger(p, id)
	wantViolation(t, w, "I3")
}

// TestBreaksI3Results has every page name wrong results.
func TestBreaksI3Results(t *testing.T) {
	w, id := broken(t, nil)
	w.inv.roots[sealed{0, 60, 0, 0}] = Program("another").Root
	w.Run(time.Minute, func() bool { return w.Done(id) })
	wantViolation(t, w, "I3")
}

// TestBreaksI4 has a driver run what it is told twice.
func TestBreaksI4(t *testing.T) {
	w, id := broken(t, func(p *Peer, e *market.Effects) {
		if p.Index == 1 && len(e.Run) > 0 {
			p.w.Started[Task{e.Run[0].Job.ID, e.Run[0].Stage, e.Run[0].Index}]++
		}
	})
	until(t, w, id, time.Minute)
	w.VerifyOnce()
	wantViolation(t, w, "I4")
}

// TestBreaksI5 has one keeper learn what it tells nobody, and listen to nobody.
func TestBreaksI5(t *testing.T) {
	deaf := false
	w, id := broken(t, func(p *Peer, e *market.Effects) {
		if deaf {
			e.Send = nil
		}
	})
	until(t, w, id, time.Minute)
	deaf = true
	w.Peers[0].Order(id, 9, protocol.VerbPause)
	w.Verify(id, protocol.JobDone)
	wantViolation(t, w, "I5")
}

// TestBreaksI6 has a peer say everything a thousand times.
func TestBreaksI6(t *testing.T) {
	left := 200 // batches: answers to answers would grow without end
	w, _ := broken(t, func(p *Peer, e *market.Effects) {
		if left--; left < 0 {
			return
		}
		for _, m := range e.Send {
			for range 1000 {
				e.Send = append(e.Send, m)
			}
		}
	})
	w.Run(time.Second, nil)
	wantViolation(t, w, "I6")
}

func TestBreaksI6Loop(t *testing.T) {
	w, _ := broken(t, func(p *Peer, e *market.Effects) { e.Changed = append(e.Changed, "") })
	w.Run(time.Second, nil)
	wantViolation(t, w, "I6")
}

// TestBreaksI7 has a driver that does not stop what it should.
func TestBreaksI7(t *testing.T) {
	w, id := broken(t, func(_ *Peer, e *market.Effects) { e.Stop = nil })
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Minute }
	w.Run(time.Second, nil)
	w.Peers[0].Cancel(id)
	w.Run(3*time.Second, nil)
	w.Verify(id, protocol.JobCancelled)
	wantViolation(t, w, "I7")
}

func TestBreaksI7Chatter(t *testing.T) {
	w, id := broken(t, nil)
	until(t, w, id, time.Minute)
	var chat func()
	chat = func() {
		w.Peers[1].send(market.Envelope{To: w.Peers[0].ID(), Message: &protocol.Digest{Job: id}})
		w.After(20*time.Millisecond, chat)
	}
	chat()
	w.VerifyQuiet(quietTime)
	wantViolation(t, w, "I7")
}

// TestBreaksI8 has a driver say things before it writes them down.
func TestBreaksI8(t *testing.T) {
	w, _ := broken(t, func(_ *Peer, e *market.Effects) { e.Persist = nil })
	w.Run(time.Second, nil)
	wantViolation(t, w, "I8")
}

// TestBreaksI8Store has a driver that does not make its store durable.
func TestBreaksI8Store(t *testing.T) {
	w, id := broken(t, func(_ *Peer, e *market.Effects) { e.Sync = false })
	w.Run(time.Minute, func() bool { return w.Done(id) })
	wantViolation(t, w, "I8")
}

// TestBreaksI8Numbers has a peer say its beats twice.
func TestBreaksI8Numbers(t *testing.T) {
	w, _ := broken(t, func(_ *Peer, e *market.Effects) { e.Send = append(e.Send, e.Send...) })
	w.Run(5*time.Second, nil)
	wantViolation(t, w, "I8")
}

// TestBreaksI8Authority has a stranger pass for the owner's peer.
func TestBreaksI8Authority(t *testing.T) {
	w, id := broken(t, nil)
	liar := insecure.NewSigner(1 << 32)
	w.inv.strangers[liar.ID()] = true
	w.Run(100*time.Millisecond, nil)
	rec, err := protocol.SignRecord(liar, &protocol.Control{Job: id, Sequence: 1, Verb: protocol.VerbPause})
	if err != nil {
		t.Fatal(err)
	}
	w.inv.made(w.Peers[0], market.Entry{Kind: market.EntryRecord, Job: id, Data: rec.Raw})
	wantViolation(t, w, "I8")
}
