package sim

import (
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
	Lazy               int           // effects without a message that wait for a later sync, per mille
	Drift              int           // a monotonic clock runs wrong by up to this, per mille
	Skew               time.Duration // a wall clock is wrong by up to this

	// Speed is how fast peer i runs, in per mille of the nominal; nil: 1000 for all.
	Speed func(i int) int
	// Task is how long a task takes at nominal speed; nil: 100 ms.
	Task func(stage protocol.StageIndex, t protocol.TaskIndex) time.Duration
	// Fail tells whether an attempt of a peer fails; nil: none.
	Fail func(peer int, stage protocol.StageIndex, t protocol.TaskIndex) bool
	// Kills tells whether a task kills the meshd that runs it, at its end; nil: none does.
	Kills func(stage protocol.StageIndex, t protocol.TaskIndex) bool
	// Unable tells whether a peer gives a task back, as for want of disk; nil: none does.
	Unable func(peer int, stage protocol.StageIndex, t protocol.TaskIndex) bool
	// Room is how many chunk groups of a job a peer has room for; who is not in it has for all.
	Room map[int]int
	// Check is how much work, at nominal speed, a task does between two checkpoints; 0: it
	// makes none.
	Check time.Duration
	// Market adjusts a peer's machine; nil: the defaults.
	Market func(*market.Config)
	// Tamper spoils what a peer's driver does with its effects: tests of the invariants
	// break them by it. nil: the driver does its duties.
	Tamper func(p *Peer, e *market.Effects)
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
	order []protocol.JobID // in which they were submitted
	net   network
	look  bool // a View may have changed since Run last looked

	// Counted while the simulation runs.
	Counts     Counts
	Started    map[Task]int  // runs started, by task
	Copied     map[Task]int  // copies of running tasks that were given away
	Worked     time.Duration // work done at nominal speed, repeated work included
	Steps      int
	Violations []error // what Step refused, and invariants that did not hold
	inv        invariants
}

// Task names a task of a job.
type Task struct {
	Job   protocol.JobID
	Stage protocol.StageIndex
	Index protocol.TaskIndex
}

// New makes a mesh whose peers are all up and connected.
func New(cfg Config) *World {
	w := &World{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), trace: sha256.New(),
		byID: map[protocol.PeerID]*Peer{}, jobs: map[protocol.JobID]*job.Signed{},
		Counts: Counts{}, Started: map[Task]int{}, Copied: map[Task]int{},
	}
	w.net.init(cfg.Peers)
	w.inv.init(w)
	for i := range cfg.Peers {
		p := &Peer{w: w, Index: i, signer: insecure.NewSigner(uint64(i)), links: map[int]bool{}}
		p.disk.init()
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
	var buf [64]byte
	n := copy(buf[:40], kind)
	binary.BigEndian.PutUint64(buf[n:], uint64(w.now))
	binary.BigEndian.PutUint64(buf[n+8:], a)
	binary.BigEndian.PutUint64(buf[n+16:], b)
	w.trace.Write(buf[:n+24])
}

// After does something at a time from now.
func (w *World) After(d time.Duration, do func()) {
	w.number++
	w.queue.push(event{w.now + max(0, d), w.number, do})
}

// between draws a time.
func (w *World) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *World) chance(perMille int) bool { return perMille > 0 && w.rng.IntN(1000) < perMille }

// lookEvery is how often Run asks whether it is done where no View has changed, and in a
// large mesh, where one always has.
const lookEvery = 250 * time.Millisecond

// Run lets time pass until done says so, and tells whether it did before the limit.
func (w *World) Run(limit time.Duration, done func() bool) bool {
	w.look = true
	next := w.now
	for len(w.queue) > 0 && w.queue[0].at <= limit {
		if done != nil && (w.look && len(w.Peers) <= fullMesh || w.now >= next) {
			if done() {
				return true
			}
			w.look, next = false, w.now+lookEvery
		}
		e := w.queue.pop()
		w.now = e.at
		e.do()
	}
	w.now = limit
	return done == nil || done()
}

// Submit gives a job to a peer.
func (w *World) Submit(p *Peer, change func(*job.Spec)) (protocol.JobID, error) {
	j, err := newJob(w, p, change)
	if err != nil {
		return "", err
	}
	w.jobs[j.ID] = j
	w.order = append(w.order, j.ID)
	p.submit(j)
	return j.ID, nil
}

// submit is what a user does: the chunks are in the store, durable, before the machine
// hears of the job.
func (p *Peer) submit(j *job.Signed) {
	for g := range j.Manifest.Groups {
		for _, root := range partOf(j, g) {
			p.disk.put(root.KeyString(), []byte("program or input"), j.ID)
			delete(p.disk.fresh, root.KeyString())
		}
	}
	p.step(market.Submit{Job: j})
}

// Done tells whether every peer that is up and keeps the job has seen it end, and at
// least one does.
func (w *World) Done(id protocol.JobID) bool {
	any := false
	for _, p := range w.Peers {
		if !p.up || !p.disk.kept[id] {
			continue
		}
		state, keeper := p.machine.State(id)
		if keeper && state == protocol.JobRunning {
			return false
		}
		any = any || keeper
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
		if _, keeper := p.machine.State(id); !keeper {
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

// maxViolations bounds what is reported: after the first few all is consequence.
const maxViolations = 20

// violate reports what must not be. name is that of an invariant, or of a duty.
func (w *World) violate(name, format string, args ...any) {
	if len(w.Violations) < maxViolations {
		w.Violations = append(w.Violations, fmt.Errorf("%s: at %v: "+format, append([]any{name, w.now}, args...)...))
	}
}
