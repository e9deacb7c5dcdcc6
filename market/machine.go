package market

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// never is later than any instant.
const never = time.Duration(1<<63 - 1)

// Machine is one peer's part in the market. It is not safe for concurrent use: one
// goroutine owns it.
type Machine struct {
	cfg  Config
	self protocol.PeerID
	now  Instant
	seed uint64

	counter uint64 // of Sequences
	nextID  uint64 // of runs and fetches

	up   map[protocol.PeerID]bool          // connected
	down map[protocol.PeerID]time.Duration // known to be unreachable, since
	gone map[protocol.PeerID]time.Duration // probed in vain, when last
	ask  map[protocol.PeerID]bool          // nothing is known of them, and they are being probed

	table    map[protocol.JobID]*protocol.Announcement
	poll     time.Duration // when a neighbour is asked for open jobs next
	swarms   map[protocol.JobID]*swarm
	order    []*swarm // running ones, in the order in which they get slots
	runs     map[RunID]*run
	alone    *run                                     // beside which nothing is started; nil: none
	learning map[protocol.JobID][]func(*swarm, error) // manifests on their way
	fetches  map[FetchID]func(Fetched)
	paces    map[string]*pace         // by program
	room     bool                     // runs ended since the last schedule
	leaving  bool                     // hands back, takes nothing
	forGood  bool                     // and will not be back soon
	handed   int                      // ranges handed back by that
	partAt   time.Duration            // when it looks next where it is the only keeper
	finals   map[protocol.JobID]final // jobs that were let go of
	sweepAt  time.Duration

	news    map[protocol.PeerID]*gazette
	pending map[protocol.PeerID]*gazette // those of them that have news
	out     Effects
}

// New makes a machine from its journal: the entries that its Effects told the driver
// to persist, in order; none for a new peer. Jobs that were running are taken up after
// listening to a keeper.
func New(cfg Config, at Instant, entries []Entry) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Machine{
		cfg: cfg, self: cfg.Signer.ID(), now: at, seed: cfg.Seed,
		up: map[protocol.PeerID]bool{}, down: map[protocol.PeerID]time.Duration{},
		gone: map[protocol.PeerID]time.Duration{}, ask: map[protocol.PeerID]bool{}, finals: map[protocol.JobID]final{},
		table: map[protocol.JobID]*protocol.Announcement{}, swarms: map[protocol.JobID]*swarm{},
		learning: map[protocol.JobID][]func(*swarm, error){}, runs: map[RunID]*run{}, fetches: map[FetchID]func(Fetched){}, paces: map[string]*pace{},
		news: map[protocol.PeerID]*gazette{}, pending: map[protocol.PeerID]*gazette{},
		poll: at.Mono + cfg.Poll,
	}
	if err := m.restore(entries); err != nil {
		return nil, err
	}
	return m, nil
}

// Step folds one input into the state. An error is a fault of the input (a message that
// breaks a rule, a job of another mesh): the state is as it was, and the driver logs it.
// Instants must not go back.
func (m *Machine) Step(at Instant, in Input) error {
	m.now = at
	err := m.step(in)
	m.schedule() // what can run here is not given away by what follows
	m.tick()
	m.schedule()
	return err
}

func (m *Machine) step(in Input) error {
	switch in := in.(type) {
	case Submit:
		return m.submit(in.Job)
	case Announced:
		return m.announced(in.Announcement)
	case Received:
		return m.received(in.From, in.Message)
	case PeerUp:
		m.peerUp(in.Peer)
	case PeerDown:
		m.peerDown(in.Peer)
	case Probed:
		m.probed(in.Peer, in.Alive)
	case Ordered:
		return m.ordered(in.Record)
	case Fetched:
		done := m.fetches[in.ID]
		if done == nil {
			return fmt.Errorf("market: fetch %d: not under way", in.ID)
		}
		delete(m.fetches, in.ID)
		done(in)
	case Ended:
		return m.ended(in)
	case Gap:
		for _, s := range m.order {
			s.listen()
		}
	case Checkpointed:
		m.checkpointed(in)
	case Died:
		for _, t := range in.Tasks {
			m.died(t)
		}
	case Damaged:
		if s := m.swarms[in.Job]; s != nil {
			s.damaged()
		}
	case HandOver:
		m.handOver(in.Jobs)
	case Leaving:
		m.leave(in.ForGood)
	case Tick:
	default:
		return fmt.Errorf("market: input %T: unknown", in)
	}
	return nil
}

// Ready gives what is owed to the world since the last call, and forgets it.
func (m *Machine) Ready() Effects {
	sends := m.out.Send
	m.out.Send = nil
	m.flushNews() // first: what else is said may follow from it
	m.out.Send = append(m.out.Send, sends...)
	e := m.out
	m.out = Effects{}
	e.Wake = m.wake()
	return e
}

// Advance tells that the effects of one Ready have been carried out: what was to be
// persisted is durable, what was to be sent is on its way. Ready may be called again
// before; effects are carried out in the order of their Ready.
func (m *Machine) Advance(Effects) {}

// wake is when the next Tick is due; 0: never.
func (m *Machine) wake() time.Duration {
	at := never
	if len(m.up) > 0 && m.cfg.Slots > 0 {
		at = m.poll
	}
	for _, s := range m.order {
		at = min(at, s.due)
	}
	at = min(at, m.newsDue())
	if len(m.swarms) > len(m.order) || len(m.finals) > 0 {
		at = min(at, m.sweepAt)
	}
	if m.leaving {
		at = min(at, m.partAt)
	}
	if at == never {
		return 0
	}
	return max(at, m.now.Mono+1)
}

// tick lets time pass: each running job whose time has come looks at all its waits.
func (m *Machine) tick() {
	for _, s := range slices.Clone(m.order) {
		if s.due <= m.now.Mono {
			s.tick()
		}
	}
	if m.poll <= m.now.Mono {
		m.askForJobs()
	}
	m.sweep()
	m.partTick()
}

func (m *Machine) send(to protocol.PeerID, msg protocol.Message) {
	if to != m.self && to != "" {
		m.out.Send = append(m.out.Send, Envelope{to, msg})
	}
}

func (m *Machine) persist(kind EntryKind, id protocol.JobID, data []byte) {
	m.out.Persist = append(m.out.Persist, Entry{kind, id, data})
}

func (m *Machine) changed(id protocol.JobID) {
	if !slices.Contains(m.out.Changed, id) {
		m.out.Changed = append(m.out.Changed, id)
	}
}

func (m *Machine) sequence() protocol.Sequence {
	m.counter++
	return protocol.Sequence{Incarnation: m.cfg.Incarnation, Counter: m.counter}
}

func (m *Machine) fetch(f Fetch, done func(Fetched)) {
	m.nextID++
	f.ID = FetchID(m.nextID)
	m.fetches[f.ID] = done
	m.out.Fetch = append(m.out.Fetch, f)
}

// random is the next number of a splitmix64 sequence (Steele, Lea, Flood 2014).
func (m *Machine) random() uint64 {
	m.seed += 0x9e3779b97f4a7c15
	z := m.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// jitter is a time from d/2 to d.
func (m *Machine) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(m.random()%uint64(d/2+1))
}

// alive tells whether p may be worth talking to: connected, or not known to be gone.
func (m *Machine) alive(p protocol.PeerID) bool {
	if p == m.self || m.up[p] {
		return true
	}
	_, gone := m.down[p]
	return !gone
}

// forgetDown is how often a keeper that is out of reach is looked for, and how long the
// answer that nobody is there stands.
const forgetDown = 30 * time.Second

// lookFor probes the keepers of a running job that are out of reach: one that is found is
// connected to by that.
func (s *swarm) lookFor() {
	list := s.keepers()
	if s.keep != nil {
		list = s.everybody()
	}
	for _, k := range list {
		if since, gone := s.m.down[k]; gone && !s.m.up[k] && s.m.now.Mono-since >= forgetDown {
			s.m.down[k] = s.m.now.Mono
			s.m.out.Probe = append(s.m.out.Probe, k)
		}
	}
	s.soundOut()
	s.wakeIn(forgetDown)
}

// soundOut probes the keepers of a job of which nothing has been heard since this peer knows of
// it, as after a start: they would pass for reachable for ever, and nobody take their place.
func (s *swarm) soundOut() {
	if s.keep == nil || s.m.now.Mono-s.started < forgetDown {
		return
	}
	for _, k := range s.everybody() {
		if _, gone := s.m.down[k]; !gone && !s.m.up[k] && k != s.m.self && !s.m.ask[k] && len(s.m.ask) < MaxMembers {
			s.m.ask[k] = true
			s.m.out.Probe = append(s.m.out.Probe, k)
		}
	}
}

func (m *Machine) peerUp(p protocol.PeerID) {
	delete(m.down, p)
	delete(m.gone, p)
	if m.up[p] {
		return
	}
	m.up[p] = true
	m.sendJobs(p)
	for _, id := range sortedKeys(m.swarms) {
		m.swarms[id].peerUp(p)
	}
}

func (m *Machine) peerDown(p protocol.PeerID) {
	if !m.up[p] {
		return
	}
	delete(m.up, p)
	m.markDown(p)
	for _, s := range m.order {
		s.peerDown(p)
	}
}

func (m *Machine) markDown(p protocol.PeerID) {
	if len(m.down) >= MaxMembers {
		oldest := slices.MinFunc(sortedKeys(m.down), func(a, b protocol.PeerID) int { return cmp.Compare(m.down[a], m.down[b]) })
		delete(m.down, oldest)
	}
	m.down[p] = m.now.Mono
}

func (m *Machine) probed(p protocol.PeerID, alive bool) {
	delete(m.ask, p)
	if alive {
		delete(m.down, p)
		delete(m.gone, p)
	} else if !m.up[p] {
		m.markDown(p)
		if len(m.gone) >= MaxMembers {
			clear(m.gone)
		}
		m.gone[p] = m.now.Mono
	}
	for _, s := range m.order {
		s.probed(p, alive)
	}
}

// submit takes a job that a user gave to this peer.
func (m *Machine) submit(j *job.Signed) error {
	if m.swarms[j.ID] != nil {
		return nil
	}
	if j.Manifest.Submitter != m.self {
		return fmt.Errorf("market: submit %s: the manifest names another peer as its submitter's", j.ID)
	}
	s, err := m.join(j)
	if err != nil {
		return err
	}
	s.keepNow(protocol.AllGroups(j.Manifest.Groups))
	if s.running() {
		s.announce()
	}
	return nil
}

// join makes the swarm of a job whose manifest is here.
func (m *Machine) join(j *job.Signed) (*swarm, error) {
	if err := j.Manifest.CheckMesh(m.cfg.Mesh); err != nil {
		return nil, err
	}
	if j.Manifest.Expires.UnixMilli() <= m.now.Unix {
		return nil, fmt.Errorf("market: job %s: %w", j.ID, ErrExpired)
	}
	if _, over := m.finals[j.ID]; over {
		return nil, fmt.Errorf("market: job %s: %w", j.ID, ErrEnded)
	}
	if len(m.swarms) >= MaxJobs && !m.forgetOne() {
		return nil, fmt.Errorf("market: job %s: %w", j.ID, ErrTooMany)
	}
	s := newSwarm(m, j)
	m.swarms[j.ID] = s
	m.insert(s)
	m.persist(EntryJob, j.ID, j.Raw)
	m.changed(j.ID)
	return s, nil
}

// Errors of Step that a driver may want to tell apart.
var (
	ErrExpired = errors.New("market: job has expired")
	ErrTooMany = errors.New("market: too many jobs")
	ErrNoJob   = errors.New("market: no such job here")
	ErrEnded   = errors.New("market: job has ended and its results are no longer kept")
)

// insert puts s among the running jobs: priority, then age, then ID.
func (m *Machine) insert(s *swarm) {
	i, _ := slices.BinarySearchFunc(m.order, s, func(a, b *swarm) int {
		return cmp.Or(cmp.Compare(b.manifest().Priority, a.manifest().Priority),
			a.manifest().Created.Compare(b.manifest().Created), cmp.Compare(a.id, b.id))
	})
	m.order = slices.Insert(m.order, i, s)
}

// forgetOne lets go of the job that ended first, if one has.
func (m *Machine) forgetOne() bool {
	var old *swarm
	for _, id := range sortedKeys(m.swarms) {
		if s := m.swarms[id]; s.ended > 0 && (old == nil || s.ended < old.ended) {
			old = s
		}
	}
	if old != nil {
		m.retire(old)
	}
	return old != nil
}

// ordered takes a control that the owner signed here.
func (m *Machine) ordered(rec protocol.Record) error {
	s := m.swarms[rec.Body.JobID()]
	if s == nil {
		return fmt.Errorf("market: control of %s: %w", rec.Body.JobID(), ErrNoJob)
	}
	changed, err := s.learn(&rec, m.self)
	if changed { // also past the keepers known here, who may be gone: an order is rare
		m.tellNear(&rec)
	}
	return err
}

// tellNear tells an order to neighbours, up to MaxTold of them.
func (m *Machine) tellNear(rec *protocol.Record) {
	near := ranked("order", rec.Body.JobID(), 0, sortedKeys(m.up))
	for _, p := range near[:min(len(near), MaxTold)] {
		m.tell(p, rec)
	}
}

// rendezvous orders candidates for a duty: by the hash of what it is about and the peer
// (Thaler, Ravishankar 1998).
func rendezvous(duty string, id protocol.JobID, n uint64, p protocol.PeerID) uint64 {
	h := sha256.New()
	h.Write([]byte(duty))
	h.Write([]byte{0})
	h.Write([]byte(id))
	h.Write(binary.BigEndian.AppendUint64(nil, n))
	h.Write([]byte(p))
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// ranked sorts peers in the rendezvous order of a duty.
func ranked(duty string, id protocol.JobID, n uint64, peers []protocol.PeerID) []protocol.PeerID {
	type weighed struct {
		w uint64
		p protocol.PeerID
	}
	list := make([]weighed, len(peers))
	for i, p := range peers {
		list[i] = weighed{rendezvous(duty, id, n, p), p}
	}
	slices.SortFunc(list, func(a, b weighed) int { return cmp.Or(cmp.Compare(a.w, b.w), cmp.Compare(a.p, b.p)) })
	out := make([]protocol.PeerID, len(list))
	for i := range list {
		out[i] = list[i].p
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}

func key(c cid.Cid) string { return c.KeyString() }
