package market

import (
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// swarm is this peer's part in a job: what it knows (the ledger), and its parts as a
// member (shares, bids) and as a keeper (pages, members, seals).
type swarm struct {
	m      *Machine
	id     protocol.JobID
	ledger *ledger
	keep   *protocol.Record // this peer's Keep; nil: it is no keeper

	started, ended time.Duration
	state          protocol.JobState
	reason         string
	version        uint64        // of the ledger, when state was derived
	listening      time.Duration // listens to a keeper until then; 0: it acts
	due            time.Duration // when tick must look again

	shares  []*share // by stage; nil: not open
	link    linkState
	seek    seekState
	stand   standState
	adopts  []adoption
	watch   watchState
	invite  inviteState
	out     outState
	callAt  time.Duration // when the keepers are asked for news, by a peer that keeps input alone
	store   storeState
	sealer  sealState
	heard   []protocol.PeerID // keepers by announcement, while the ledger names none
	spread  time.Duration     // when the job is announced again
	swap    time.Duration     // when the next digest goes
	swapTo  int
	alone   time.Duration                     // since when no keeper is reached; 0: one is
	around  time.Duration                     // when neighbours are asked next, while there is no keeper
	stopped map[protocol.PeerID]protocol.Hash // who acknowledged which order to end; it may come before the order
	acked   bool
	owing   []protocol.PeerID                          // who told the order that ended the job and waits to hear that nothing runs here
	over    time.Duration                              // when it is let go of, as a keeper says that it was done and let go of; 0: none does
	owed    map[protocol.Hash]map[protocol.PeerID]bool // orders that keepers are to be told, and who of them has each
	owedAt  time.Duration                              // when they are told again
	strayAt time.Duration                              // when neighbours are, while no keeper is reached
	agreed  map[protocol.PeerID]protocol.Hash          // the last digest that was the same here and at a keeper
	altered time.Duration                              // when the ledger last changed
	damages uint64                                     // times that chunks were found damaged: what a fetch saw before need not be here
	moved   time.Duration                              // when a result was last heard of, or the job itself
	credit  map[protocol.PeerID]uint64                 // tasks whose result came from a peer, as far as seen here
}

func newSwarm(m *Machine, j *job.Signed) *swarm {
	s := &swarm{
		m: m, id: j.ID, ledger: newLedger(j), started: m.now.Mono, state: protocol.JobRunning,
		shares: make([]*share, len(j.Manifest.Stages)), due: m.now.Mono, moved: m.now.Mono,
		stopped: map[protocol.PeerID]protocol.Hash{}, owed: map[protocol.Hash]map[protocol.PeerID]bool{}, agreed: map[protocol.PeerID]protocol.Hash{},
		credit: map[protocol.PeerID]uint64{},
	}
	s.watch.init()
	s.invite.init()
	s.out.init()
	s.store.init()
	s.sealer.init()
	s.spread = m.now.Mono + m.jitter(m.cfg.Reannounce)
	s.swap = m.now.Mono + m.jitter(m.cfg.Exchange)
	for i := range s.ledger.stages {
		s.touchStage(protocol.StageIndex(i))
	}
	return s
}

// size is about how many members the job has: as a keeper said or, of a keeper, as it sees.
func (s *swarm) size() uint64 {
	if s.keep == nil {
		return max(uint64(s.seek.members), 1)
	}
	return max(s.watch.size, uint64(len(s.watch.members)+1))
}

func (s *swarm) manifest() *job.Manifest { return &s.ledger.job.Manifest }

// wakeAt asks for a tick at t at the latest.
func (s *swarm) wakeAt(t time.Duration) { s.due = min(s.due, t) }

// wakeIn is wakeAt from now on.
func (s *swarm) wakeIn(d time.Duration) { s.wakeAt(s.m.now.Mono + d) }

// running tells whether there is anything left to do.
func (s *swarm) running() bool { return s.ended == 0 }

// acting tells whether this peer may grant, adopt, release others and seal.
func (s *swarm) acting() bool { return s.running() && s.listening == 0 }

// listen makes the peer hear a keeper before it acts: after a start or a gap in time
// what it remembers may be old.
func (s *swarm) listen() {
	s.seek.clear()
	s.stand.clear()
	s.watch.clear()
	s.adopts = nil
	if len(s.others()) == 0 {
		s.listening = 0
		s.due = s.m.now.Mono
		return
	}
	s.listening = s.m.now.Mono + s.m.cfg.Listen
	s.swap = s.m.now.Mono
	s.seek.asked = ""
	s.due = s.m.now.Mono
}

// heardFrom ends listening: a keeper has told its state.
func (s *swarm) heardFrom(p protocol.PeerID) {
	if s.listening > 0 && s.isKeeper(p) {
		s.listening = 0
		s.due = s.m.now.Mono
	}
}

// tick looks at everything that waits for time.
func (s *swarm) tick() {
	s.due = never
	if !s.running() {
		return
	}
	now := s.m.now.Mono
	s.m.room = true // a pause of a task, or of this peer, may be over
	if s.manifest().Expires.UnixMilli() <= s.m.now.Unix {
		s.end(protocol.JobFailed, "it expired")
		return
	}
	s.wakeIn(s.m.cfg.Beat)
	if s.listening > 0 && now >= s.listening {
		s.listening = 0
	}
	if s.overTick() {
		return
	}
	s.lookFor()
	s.exchangeTick()
	s.orphanTick()
	s.orderTick()
	s.inviteTick()
	s.callTick()
	s.surplusTick()
	s.storeTick()
	s.lostTick()
	s.sealTick()
	s.watchTick()
	s.adoptTick()
	s.pagesTick()
	s.standTick()
	s.seekTick()
	s.beatTick()
	s.announceTick()
}

// learn joins a record into the ledger and, where it is news, makes it durable and
// passes it on. from is the peer that sent it, or this one.
func (s *swarm) learn(rec *protocol.Record, from protocol.PeerID) (bool, error) {
	old, loser, states := s.checkpointOf(rec), s.loserTo(rec), s.statesIn(rec)
	fresh := s.freshIn(rec)
	changed, err := s.ledger.add(rec)
	if err != nil || !changed {
		return false, err
	}
	if fresh > 0 {
		s.credit[rec.Signer] += fresh
	}
	s.dropStates(states...)
	s.altered = s.m.now.Mono
	s.m.persist(EntryRecord, s.id, rec.Raw)
	s.pass(rec, from)
	if s.keep != nil {
		s.m.tell(loser, rec)
	}
	switch b := rec.Body.(type) {
	case *protocol.Keep:
		s.keepLearned(rec)
	case *protocol.Unkeep:
		s.unkeepLearned(rec)
	case *protocol.Segment:
		s.segmentLearned(b)
	case *protocol.Done:
		s.doneLearned(rec, b)
	case *protocol.Seal:
		s.sealLearned(rec, b)
	case *protocol.Checkpoint:
		s.did(rec.Signer)
		s.checkpointLearned(old)
	case *protocol.Failed:
		s.told(b)
		s.rewind()
	case *protocol.Control:
		s.seek.soon()
		if s.keep == nil && !s.isKeeper(from) {
			s.owe(rec)
		}
		s.rewind()
	case *protocol.Reopen:
		s.rewind()
	}
	s.settleState()
	s.m.changed(s.id)
	s.m.room = true
	s.wakeAt(s.m.now.Mono)
	return true, nil
}

// freshIn is how many tasks a result about to be learned is the first of.
func (s *swarm) freshIn(rec *protocol.Record) (n uint64) {
	b, ok := rec.Body.(*protocol.Done)
	if !ok {
		return 0
	}
	if st := s.ledger.stage(b.StageRef); st != nil {
		st.each(b.Range.Intersect(st.all()), func(r protocol.Range, c *cell) bool {
			if c.done == nil && c.life <= b.Life {
				n += r.Len()
			}
			return true
		})
	}
	return n
}

// loserTo is who held the range of a segment at the same epoch: of two adopters the one
// that loses is told by whoever sees it.
func (s *swarm) loserTo(rec *protocol.Record) protocol.PeerID {
	b, ok := rec.Body.(*protocol.Segment)
	if !ok {
		return ""
	}
	st := s.ledger.stage(b.StageRef)
	if st == nil || uint64(b.Range.Lo) >= st.n {
		return ""
	}
	if c := st.at(b.Range.Lo); c.held != nil && c.epoch() == b.Epoch && c.held.Hash != rec.Hash {
		return st.holder(c)
	}
	return ""
}

// sign makes this peer's record and learns it. A failure to sign is a fault of ours
// and leaves things as they are: every caller comes round again.
func (s *swarm) sign(b protocol.Body) *protocol.Record {
	rec, err := protocol.SignRecord(s.m.cfg.Signer, b)
	if err != nil {
		return nil
	}
	if changed, err := s.learn(&rec, s.m.self); err != nil || !changed {
		return nil // it would say what nobody has: what stands was there before
	}
	return &rec
}

// settleState derives the job's state and ends the peer's part when it is over.
func (s *swarm) settleState() {
	if s.version == s.ledger.version {
		return
	}
	s.version = s.ledger.version
	state, reason := s.ledger.state()
	again := state == protocol.JobRunning || state == protocol.JobDone && s.ledger.mending()
	if state == s.state && reason == s.reason && again == s.running() {
		return
	}
	if again {
		s.revive(state)
		return
	}
	s.end(state, reason)
}

// revive takes a job up again that had ended here: its owner retries it, what a stage was
// computed from has lost to another seal, or results that were lost are made again.
func (s *swarm) revive(state protocol.JobState) {
	s.state, s.reason = state, ""
	s.m.changed(s.id)
	if s.ended == 0 {
		return
	}
	s.ended = 0
	s.m.insert(s)
	s.takeStock()
	s.listen()
}

// end stops all work for the job.
func (s *swarm) end(state protocol.JobState, reason string) {
	s.state, s.reason = state, reason
	s.m.changed(s.id)
	if s.ended > 0 {
		s.acknowledge()
		return
	}
	s.ended = max(s.m.now.Mono, 1)
	for _, sh := range s.shares {
		if sh != nil {
			sh.stopAll()
		}
	}
	s.refuseAll()
	s.flushStored()
	clear(s.store.pages)
	clear(s.store.away)
	clear(s.sealer.ready)
	s.acknowledge()
	delete(s.m.table, s.id)
	s.m.order = slices.DeleteFunc(slices.Clone(s.m.order), func(o *swarm) bool { return o == s })
}

// touchStage makes the share of a stage that is open, and lets go of one whose key is
// no more.
func (s *swarm) touchStage(i protocol.StageIndex) {
	st, sh := s.ledger.stages[i], s.shares[i]
	if sh != nil && sh.st == st {
		return
	}
	if sh != nil {
		sh.stopAll()
		s.shares[i] = nil
	}
	if st != nil {
		s.shares[i] = newShare(s, st)
		s.seek.soon()
		s.due = s.m.now.Mono
	}
}

// rewind makes every share look at all its tasks again.
func (s *swarm) rewind() {
	for _, sh := range s.shares {
		if sh != nil {
			sh.cursor = 0
			sh.reconcile()
		}
	}
}

// segmentLearned looks at what a change of hands means for this peer.
func (s *swarm) segmentLearned(b *protocol.Segment) {
	sh := s.share(b.StageRef)
	if sh == nil {
		return
	}
	s.coolDown(b)
	switch b.Holder {
	case s.m.self:
		sh.cursor = min(sh.cursor, b.Range.Lo)
		s.seek.bids = slices.DeleteFunc(s.seek.bids, func(o sentBid) bool { return o.holder == b.Replaced })
	case "":
		s.offer(protocol.Open{Stage: b.StageRef, Life: b.Life, Range: b.Range, Epoch: b.Epoch}, false)
	default:
		sh.reconcile()
	}
}

func (s *swarm) share(ref protocol.StageRef) *share {
	if st := s.ledger.stage(ref); st != nil {
		return s.shares[ref.Stage]
	}
	return nil
}

// isKeeper tells whether the ledger, or before it an announcement, names p a keeper.
func (s *swarm) isKeeper(p protocol.PeerID) bool {
	return s.ledger.keepOf(p) != nil || slices.Contains(s.heard, p)
}

// keepers are the keepers known, whether reachable or not.
func (s *swarm) keepers() []protocol.PeerID {
	if k := s.ledger.keepers(); len(k) > 0 {
		return k
	}
	return s.heard
}

// live are the keepers that may be reachable, this peer included where it is one.
func (s *swarm) live() []protocol.PeerID {
	return slices.DeleteFunc(slices.Clone(s.keepers()), func(p protocol.PeerID) bool { return !s.m.alive(p) })
}

// others are the live keepers but this peer.
func (s *swarm) others() []protocol.PeerID {
	return slices.DeleteFunc(s.live(), func(p protocol.PeerID) bool { return p == s.m.self })
}

// links are the two live keepers that this peer beats to, in their rendezvous order.
func (s *swarm) links() []protocol.PeerID { return s.judges(s.m.self) }

// judges are the keepers that judge whether p is gone: the first two live ones but
// itself, in the rendezvous order of job and member.
func (s *swarm) judges(p protocol.PeerID) []protocol.PeerID {
	list := s.inOrder(duty{name: "judge", peer: p})
	list = slices.DeleteFunc(list, func(k protocol.PeerID) bool { return k == p })
	return list[:min(2, len(list))]
}

// judging tells whether this peer is one of the judges of p.
func (s *swarm) judging(p protocol.PeerID) bool {
	n := 0
	for _, k := range s.ledger.inOrder(duty{name: "judge", peer: p}) {
		if k == p || !s.m.alive(k) {
			continue
		}
		if k == s.m.self {
			return true
		}
		if n++; n == 2 {
			return false
		}
	}
	return false
}

// inOrder are the live keepers, this peer included where it is one, in the rendezvous
// order of a duty.
func (s *swarm) inOrder(d duty) []protocol.PeerID {
	list := s.ledger.inOrder(d)
	if len(list) == 0 {
		return d.order(s.id, s.live())
	}
	return slices.DeleteFunc(slices.Clone(list), func(p protocol.PeerID) bool { return !s.m.alive(p) })
}

func (s *swarm) peerUp(p protocol.PeerID) {
	s.wakeAt(s.m.now.Mono)
	if s.keep != nil && s.isKeeper(p) {
		s.sendDigest(p, false)
		s.tellStored(p)
	} else if s.keep != nil && s.groupsOf(p) != 0 {
		s.brief(p)
	}
	if s.keep == nil && s.listening > 0 && s.isKeeper(p) {
		s.resend(p) // what was said since the start reached nobody
	}
	if !s.running() {
		return
	}
	if s.isKeeper(p) {
		s.seek.soon()
		s.link.next = s.m.now.Mono
		if strings.HasPrefix(s.link.trouble, missingText) {
			s.link.unfit = 0 // it may have what was missing
		}
	}
}

func (s *swarm) peerDown(p protocol.PeerID) {
	s.wakeAt(s.m.now.Mono)
	s.watch.next = 0
	s.seek.lost(p)
	s.stand.drop(p)
	for _, sh := range s.shares {
		if sh != nil {
			sh.copies.lost(p)
		}
	}
	s.suspect(p)
	if s.isKeeper(p) {
		s.seek.soon()
		s.link.next = s.m.now.Mono
		if s.keep == nil {
			for _, k := range s.links() {
				s.resend(k)
			}
		}
	}
}
