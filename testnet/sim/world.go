package sim

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
)

// Config is a simulated mesh. Everything random is drawn from Seed.
type Config struct {
	Seed  uint64
	Peers int
	Slots int // of each peer; peers in Idle have none
	Idle  map[int]bool

	DelayMin, DelayMax time.Duration // of a message, one way; unequal delays reorder
	Loss               int           // messages lost, per mille
	Duplicate          int           // messages that come twice, per mille
	NoGossip           bool          // announcements reach nobody: neighbours are asked

	// Speed is how fast peer i runs, in per mille of the nominal; nil: 1000 for all.
	Speed func(i int) int
	// Task is how long a task takes at nominal speed; nil: 100 ms.
	Task func(stage protocol.StageIndex, t protocol.TaskIndex) time.Duration
	// Fail tells whether an attempt of a peer fails; nil: none.
	Fail func(peer int, stage protocol.StageIndex, t protocol.TaskIndex) bool
	// Unable tells whether a peer gives a task back, as for want of disk; nil: none does.
	Unable func(peer int, stage protocol.StageIndex, t protocol.TaskIndex) bool
	// Check is how much work, at nominal speed, a task does between two checkpoints; 0: it
	// makes none.
	Check time.Duration
	// Market adjusts a peer's machine; nil: the defaults.
	Market func(*market.Config)
}

// epoch is the wall clock, in Unix ms, at which every simulation starts.
const epoch = 1_700_000_000_000

// World is a simulation under way.
type World struct {
	cfg    Config
	rng    *rand.Rand
	now    time.Duration
	queue  events
	number uint64
	trace  hash.Hash

	Peers []*Peer
	byID  map[protocol.PeerID]*Peer
	jobs  map[protocol.JobID]*job.Signed
	cut   func(a, b int) bool // tells whether two peers can't reach one another

	// Counted while the simulation runs.
	Messages map[string]int // sent, by type
	Started  map[Task]int   // runs started, by task
	Worked   time.Duration  // work done at nominal speed, repeated work included
	Steps    int
	Faults   []error // what Step refused, and invariants that did not hold
}

// Task names a task of a job.
type Task struct {
	Job   protocol.JobID
	Stage protocol.StageIndex
	Index protocol.TaskIndex
}

type event struct {
	at time.Duration
	n  uint64
	do func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// New makes a mesh whose peers are all up and connected.
func New(cfg Config) *World {
	w := &World{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), trace: sha256.New(),
		byID: map[protocol.PeerID]*Peer{}, jobs: map[protocol.JobID]*job.Signed{},
		cut: func(a, b int) bool { return false }, Messages: map[string]int{}, Started: map[Task]int{},
	}
	for i := range cfg.Peers {
		p := &Peer{w: w, Index: i, signer: insecure.NewSigner(uint64(i)), blocks: map[string][]byte{}, runs: map[market.RunID]bool{}}
		w.Peers = append(w.Peers, p)
		w.byID[p.ID()] = p
	}
	for _, p := range w.Peers {
		p.start()
	}
	for _, p := range w.Peers {
		p.meet()
	}
	return w
}

// Now is the virtual time since the start.
func (w *World) Now() time.Duration { return w.now }

// Trace is the hash of everything that happened so far.
func (w *World) Trace() protocol.Hash { return protocol.Hash(w.trace.Sum(nil)) }

func (w *World) note(kind string, a, b uint64) {
	var buf [24]byte
	binary.BigEndian.PutUint64(buf[:], uint64(w.now))
	binary.BigEndian.PutUint64(buf[8:], a)
	binary.BigEndian.PutUint64(buf[16:], b)
	w.trace.Write([]byte(kind))
	w.trace.Write(buf[:])
}

// After does something at a time from now.
func (w *World) After(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.queue, event{w.now + max(0, d), w.number, do})
}

// delay draws the time that a message takes.
func (w *World) delay() time.Duration {
	return w.cfg.DelayMin + time.Duration(w.rng.Int64N(int64(w.cfg.DelayMax-w.cfg.DelayMin)+1))
}

func (w *World) chance(perMille int) bool { return perMille > 0 && w.rng.IntN(1000) < perMille }

// Run lets time pass until done says so, and tells whether it did before the limit.
func (w *World) Run(limit time.Duration, done func() bool) bool {
	for len(w.queue) > 0 && w.queue[0].at <= limit {
		if done != nil && done() {
			return true
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	if done == nil || !done() {
		w.now = limit
		return done == nil
	}
	return true
}

// Partition cuts the links between peers for which cut is true; nil heals all.
func (w *World) Partition(cut func(a, b int) bool) {
	if cut == nil {
		cut = func(a, b int) bool { return false }
	}
	old := w.cut
	w.cut = cut
	for _, p := range w.Peers {
		for _, q := range w.Peers {
			if p == q || !p.up || !q.up || old(p.Index, q.Index) == cut(p.Index, q.Index) {
				continue
			}
			if cut(p.Index, q.Index) {
				p.step(market.PeerDown{Peer: q.ID()})
			} else {
				p.step(market.PeerUp{Peer: q.ID()})
			}
		}
	}
}

// Submit gives a job to a peer. tasks is the number of its map tasks; fanIn 0 is no
// reduce, else a tree of that fan-in.
func (w *World) Submit(p *Peer, change func(*job.Spec)) (protocol.JobID, error) {
	j, err := newJob(w, p, change)
	if err != nil {
		return "", err
	}
	w.jobs[j.ID] = j
	p.step(market.Submit{Job: j})
	return j.ID, nil
}

// Done tells whether every peer that is up and keeps the job has seen it end, and at
// least one does.
func (w *World) Done(id protocol.JobID) bool {
	any := false
	for _, p := range w.Peers {
		if !p.up {
			continue
		}
		v, ok := p.machine.View(id)
		if !ok || !v.Keeper {
			continue
		}
		if v.State == protocol.JobRunning {
			return false
		}
		any = true
	}
	return any
}

// Settled tells whether the ledgers of all keepers that are up are equal.
func (w *World) Settled(id protocol.JobID) bool {
	var first protocol.Hash
	for _, p := range w.Peers {
		if !p.up {
			continue
		}
		if v, ok := p.machine.View(id); !ok || !v.Keeper {
			continue
		}
		d := p.machine.Digest(id)
		if first.IsZero() {
			first = d
		} else if d != first {
			return false
		}
	}
	return true
}

func (w *World) fault(format string, args ...any) {
	w.Faults = append(w.Faults, fmt.Errorf("at %v: "+format, append([]any{w.now}, args...)...))
}
