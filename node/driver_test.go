package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// scripted is a machine that owes, for each PeerUp it is stepped with, what the test says for that peer.
type scripted struct {
	owes    func(protocol.PeerID) market.Effects
	out     market.Effects
	inputs  []market.Input
	refuses error
}

func (m *scripted) Step(_ market.Instant, in market.Input) error {
	m.inputs = append(m.inputs, in)
	if up, ok := in.(market.PeerUp); ok && m.owes != nil {
		e := m.owes(up.Peer)
		m.out.Persist = append(m.out.Persist, e.Persist...)
		m.out.Send = append(m.out.Send, e.Send...)
		m.out.Run = append(m.out.Run, e.Run...)
		m.out.Sync = m.out.Sync || e.Sync
	}
	return m.refuses
}

func (m *scripted) Ready() market.Effects {
	e := m.out
	m.out = market.Effects{}
	return e
}
func (m *scripted) Entries() []market.Entry                     { return nil }
func (m *scripted) Advance(market.Effects)                      {}
func (m *scripted) View(protocol.JobID) (v market.View, b bool) { return }
func (m *scripted) Jobs() []protocol.JobID                      { return nil }
func (m *scripted) Announced() []protocol.Announcement          { return nil }
func (m *scripted) Records(protocol.JobID) []protocol.Record    { return nil }
func (m *scripted) Busy() bool                                  { return false }
func (m *scripted) Handed() int                                 { return 0 }
func (m *scripted) Pages(protocol.JobID, protocol.StageIndex, protocol.TaskIndex) []cid.Cid {
	return nil
}

var errDisk = errors.New("input/output error")

// recorder is a committer that writes down the order of things, and can be held up or made to fail.
type recorder struct {
	mu     sync.Mutex
	log    []string
	gate   chan struct{} // one token a commit; nil: none needed
	failAt int           // the commit that fails, from 1; 0: none
	count  int
}

func (r *recorder) do(b *batch) error {
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if r.count == r.failAt {
		return errDisk
	}
	for _, e := range b.persist {
		r.log = append(r.log, "persist "+string(e.Data))
	}
	for _, e := range b.send {
		r.log = append(r.log, "send "+string(e.To))
	}
	return nil
}

func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// outletsTo hands batches to a committer and drops all else.
func outletsTo(c committer) outlets {
	return outlets{
		run: func([]market.Run) {}, prefetch: func([]market.Run) {}, stop: func([]market.RunID) {},
		fetch: func([]market.Fetch) {}, probe: func([]protocol.PeerID) {}, expect: func([]job.Block) {}, commit: c,
		compact: func() bool { return false },
	}
}

func startDriver(t testing.TB, m machine, c committer, failed func(error)) *driver {
	d := newDriver(m, outletsTo(c), newClock(), quiet())
	d.start(failed)
	t.Cleanup(d.close)
	return d
}

// Whatever comes in, and however slow the disk: a message leaves after its own entries and all earlier ones, in the
// order of the machine, each once.
func TestSendsFollowTheirPersist(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "inputs")
		kinds := rapid.SliceOfN(rapid.IntRange(0, 3), n, n).Draw(rt, "kinds")
		var want []string
		m := &scripted{owes: func(p protocol.PeerID) market.Effects {
			i := int(p[0])
			var e market.Effects
			if kinds[i]&1 != 0 {
				e.Persist = []market.Entry{{Kind: market.EntryRecord, Data: []byte(p)}}
			}
			if kinds[i]&2 != 0 {
				e.Send = []market.Envelope{{To: p, Message: &protocol.JobsRequest{}}}
			}
			return e
		}}
		rec := &recorder{gate: make(chan struct{}, n+2)}
		d := newDriver(m, outletsTo(rec), newClock(), quiet())
		d.start(func(err error) { rt.Errorf("failed: %v", err) })
		for i := range n {
			d.post(market.PeerUp{Peer: protocol.PeerID([]byte{byte(i)})})
			if rapid.Bool().Draw(rt, "disk") {
				rec.gate <- struct{}{}
			}
		}
		go func() { // the disk catches up
			for {
				select {
				case rec.gate <- struct{}{}:
				case <-d.ended:
					return
				}
			}
		}()
		if err := d.settle(context.Background(), market.Tick{}); err != nil {
			rt.Fatal(err)
		}
		d.close()
		got := rec.lines()
		checkOrder(rt, got, kinds)
		for i, k := range kinds {
			if k&1 != 0 {
				want = append(want, "persist "+string([]byte{byte(i)}))
			}
			if k&2 != 0 {
				want = append(want, "send "+string([]byte{byte(i)}))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			rt.Fatalf("got %q, want %q", got, want)
		}
	})
}

// checkOrder wants entries and messages in the order of their inputs, and no message before the entries up to its own.
func checkOrder(rt *rapid.T, got []string, kinds []int) {
	persisted, sent := -1, -1
	for _, line := range got {
		verb, who, _ := cut(line)
		last := &persisted
		if verb == "send" {
			last = &sent
		}
		if who <= *last {
			rt.Fatalf("%s %d out of order: %q", verb, who, got)
		}
		*last = who
		if verb != "send" {
			continue
		}
		for i := range who + 1 {
			if kinds[i]&1 != 0 && i > persisted {
				rt.Fatalf("message %d left before entry %d was durable: %q", who, i, got)
			}
		}
	}
}

func cut(line string) (verb string, who int, ok bool) {
	for i := range line {
		if line[i] == ' ' {
			return line[:i], int(line[i+1]), true
		}
	}
	return line, 0, false
}

// While a commit is under way the loop goes on: runs start, questions are answered.
func TestLoopGoesOnDuringACommit(t *testing.T) {
	rec := &recorder{gate: make(chan struct{})}
	ran := make(chan market.RunID, 1)
	m := &scripted{owes: func(p protocol.PeerID) (e market.Effects) {
		e.Persist = []market.Entry{{Data: []byte(p)}}
		if p == "run" {
			e.Run = []market.Run{{ID: 7}}
		}
		return e
	}}
	out := outlets{expect: func([]job.Block) {}, prefetch: func([]market.Run) {}, run: func(r []market.Run) { ran <- r[0].ID }, commit: rec,
		compact: func() bool { return false }}
	d := newDriver(m, out, newClock(), quiet())
	d.start(func(error) {})
	settled := make(chan error, 1)
	go func() { settled <- d.settle(context.Background(), market.PeerUp{Peer: "slow"}) }()
	d.post(market.PeerUp{Peer: "run"})
	if id := <-ran; id != 7 {
		t.Fatalf("ran %d", id)
	}
	if err := d.ask(context.Background(), func(machine) {}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-settled:
		t.Fatalf("settled before the commit: %v", err)
	default:
	}
	close(rec.gate)
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	d.close()
}

// A commit that fails ends everything: those who wait are told, nothing leaves any more.
func TestFailedCommitStopsTheDriver(t *testing.T) {
	rec := &recorder{failAt: 2}
	m := &scripted{owes: func(p protocol.PeerID) market.Effects {
		return market.Effects{
			Persist: []market.Entry{{Data: []byte(p)}},
			Send:    []market.Envelope{{To: p, Message: &protocol.JobsRequest{}}},
		}
	}}
	failed := make(chan error, 1)
	d := startDriver(t, m, rec, func(err error) { failed <- err })
	if err := d.settle(context.Background(), market.PeerUp{Peer: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := d.settle(context.Background(), market.PeerUp{Peer: "b"}); !errors.Is(err, errDisk) {
		t.Fatalf("second commit: %v", err)
	}
	if err := <-failed; !errors.Is(err, errDisk) {
		t.Fatalf("failed with %v", err)
	}
	if err := d.settle(context.Background(), market.PeerUp{Peer: "c"}); err == nil {
		t.Fatal("an input was accepted after the failure")
	}
	if got, want := rec.lines(), []string{"persist a", "send a"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestRefusedInputIsTold(t *testing.T) {
	m := &scripted{refuses: errors.New("no")}
	d := startDriver(t, m, &recorder{}, func(error) {})
	if err := d.settle(context.Background(), market.Submit{}); !errors.Is(err, m.refuses) {
		t.Fatalf("got %v", err)
	}
}

func TestGap(t *testing.T) {
	at := func(mono time.Duration, wall time.Duration) market.Instant {
		return market.Instant{Mono: mono, Unix: wall.Milliseconds()}
	}
	c := newClock()
	for _, test := range []struct {
		name string
		to   market.Instant
		want bool
	}{
		{"a pulse", at(pulse, pulse), false},
		{"busy for two seconds", at(pulse+gapAfter, pulse+gapAfter), false},
		{"stopped for five seconds", at(5*time.Second, 5*time.Second), true},
		{"asleep, the monotonic clock too", at(pulse, time.Hour), true},
		{"the wall clock was put back", at(pulse, -time.Hour), false},
	} {
		if got := c.gap(at(0, 0), test.to); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
