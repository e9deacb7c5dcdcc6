package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// A keeper's way out. Where more keepers are connected than the job wants, as after a
// partition, those at the end of the rendezvous order take their Keep back; who leaves the
// mesh for good does so at any place in it. The chunks go only when as many other keepers
// as the job has replicas have said, since then, that they hold everything.

// outState is how far this peer is on its way out.
type outState struct {
	many  time.Duration            // since when it is one keeper too many; never: it is not
	going bool                     // its Keep is taken back, and its chunks are still here
	held  map[protocol.PeerID]bool // keepers that have said since that they hold everything
	ask   time.Duration            // when they are asked next
	only  bool                     // this peer is leaving, and nobody else has said that it holds everything

	crowded bool          // this peer has no room for the job
	since   time.Duration // when its Keep was taken back
}

func (o *outState) init() {
	*o = outState{many: never, held: map[protocol.PeerID]bool{}, crowded: o.crowded}
}

// full tells whether a peer keeps the job's chunks, not its ledger alone.
func (s *swarm) full(p protocol.PeerID) bool {
	k := s.ledger.keepOf(p)
	return k != nil && k.Body.(*protocol.Keep).Groups != 0
}

// hasLeft tells whether a peer has taken back every Keep that is known of it.
func (s *swarm) hasLeft(p protocol.PeerID) bool {
	return s.ledger.keepOf(p) == nil && slices.ContainsFunc(sorted(s.ledger.unkeeps), func(u *protocol.Record) bool { return u.Signer == p })
}

// partial are the keepers of the ledger alone.
func (s *swarm) partial() (list []protocol.PeerID) {
	for _, k := range s.ledger.keepers() {
		if !s.full(k) {
			list = append(list, k)
		}
	}
	return list
}

// liveFull are the keepers of the job's chunks that may be reachable.
func (s *swarm) liveFull() []protocol.PeerID {
	return slices.DeleteFunc(s.live(), func(p protocol.PeerID) bool { return !s.full(p) })
}

// before is the number of connected keepers of the job's chunks that are to stay rather
// than this peer: the submitter's, then those before it in rendezvous order; where it has
// the ledger alone, all.
func (s *swarm) before() (n int) {
	own := s.full(s.m.self)
	if own && s.manifest().Submitter == s.m.self {
		return 0
	}
	mine := rendezvous("keep", s.id, 0, s.m.self)
	for _, k := range s.ledger.keepers() {
		if s.m.up[k] && s.full(k) && (!own || k == s.manifest().Submitter || rendezvous("keep", s.id, 0, k) < mine) {
			n++
		}
	}
	return n
}

// surplusTick takes this peer's Keep back once it has been one too many for Hysteresis.
func (s *swarm) surplusTick() {
	o := &s.out
	s.outTick()
	s.handTick()
	if s.keep == nil || s.listening > 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone || s.before() < s.wanted() {
		o.many = never
		return
	}
	now := s.m.now.Mono
	if o.many == never {
		o.many = now
	}
	if due := o.many + s.m.cfg.Hysteresis; now < due {
		s.wakeAt(due)
		return
	}
	s.unkeep()
}

// unkeep takes back every Keep of this peer.
func (s *swarm) unkeep() {
	for _, k := range sorted(s.ledger.keeps) {
		if k.Signer == s.m.self && !s.ledger.revoked(k) {
			s.sign(&protocol.Unkeep{Job: s.id, Keep: k.Hash, Groups: k.Body.(*protocol.Keep).Groups, Sequence: s.m.sequence()})
		}
	}
}

// unkeepLearned makes this peer a member like others, or has a keeper look for one in the
// place of another: who says that it goes is no short absence.
func (s *swarm) unkeepLearned(rec *protocol.Record) {
	if rec.Signer != s.m.self {
		s.invite.few = s.m.now.Mono - s.m.cfg.Hysteresis
		return
	}
	if s.keep = s.ledger.keepOf(s.m.self); s.keep != nil {
		return
	}
	s.store.init()
	s.sealer.init()
	s.watch.init()
	clear(s.invite.asked)
	s.out.init()
	s.out.going, s.out.since = true, s.m.now.Mono
	s.seek.soon()
	s.link.next = s.m.now.Mono
}

// outTick asks the keepers whether they hold everything, and lets go of the chunks when
// enough of them do and nothing here needs them.
func (s *swarm) outTick() {
	o := &s.out
	if !o.going {
		return
	}
	if s.keep != nil {
		o.init() // it was invited again
		return
	}
	if s.invite.fetching {
		return // it may be in a moment
	}
	n := 0
	for _, p := range sortedKeys(o.held) {
		if s.full(p) {
			n++
		}
	}
	enough := max(1, s.manifest().Replicas)
	if waited := o.since + s.m.cfg.Hysteresis; o.crowded && s.m.now.Mono >= waited {
		enough = 1
	} else if o.crowded {
		s.wakeAt(waited)
	}
	if n >= enough {
		if !s.atWork() {
			o.init()
			s.m.drop(s.id, cid.Undef)
			s.m.changed(s.id)
		}
		return
	}
	if s.m.now.Mono < o.ask {
		s.wakeAt(o.ask)
		return
	}
	o.ask = s.m.now.Mono + s.m.cfg.KeepWait
	s.wakeAt(o.ask)
	s.askHolds()
}

// askHolds asks the keepers that have not said so whether they hold everything.
func (s *swarm) askHolds() {
	for _, k := range s.ledger.keepers() {
		if !s.m.up[k] || !s.full(k) || s.out.held[k] {
			continue
		}
		for _, u := range sorted(s.ledger.unkeeps) {
			if u.Signer == s.m.self {
				s.m.tell(k, u)
			}
		}
		s.m.send(k, &protocol.KeepRequest{Job: s.id, Groups: protocol.AllGroups(s.manifest().Groups), Leaving: true})
	}
}

// atWork tells whether this peer has tasks, results or states of the job under way.
func (s *swarm) atWork() bool {
	return slices.ContainsFunc(s.shares, func(sh *share) bool {
		return sh != nil && len(sh.running)+len(sh.finished)+len(sh.pages)+len(sh.progress) > 0
	})
}

// holdsAll tells whether this keeper has all that the job's keepers are to have: what came
// with its Keep, and everything that the ledger names since.
func (s *swarm) holdsAll() bool {
	if s.keep == nil || !s.full(s.m.self) || s.store.mend.due || s.m.leaving || s.out.crowded || s.running() && s.listening > 0 {
		return false
	}
	for _, k := range sortedKeys(s.store.pages) {
		if p := s.store.pages[k]; !p.here && p.rng.Lo < p.rng.Hi {
			return false
		}
	}
	for _, k := range sortedKeys(s.store.seals) {
		if !s.store.seals[k].here {
			return false
		}
	}
	return true
}

// answerLeaver tells a peer that has taken its Keep back whether it may let go.
func (m *Machine) answerLeaver(from protocol.PeerID, q *protocol.KeepRequest) {
	s := m.swarms[q.Job]
	a := &protocol.KeepAnswer{Job: q.Job, Reason: "it does not hold all of the job"}
	if s != nil && s.holdsAll() {
		a = &protocol.KeepAnswer{Job: q.Job, Accepted: true, Holds: true}
		m.out.Sync = true
	}
	m.send(from, a)
}

// confirmed hears that a keeper holds everything.
func (s *swarm) confirmed(from protocol.PeerID) {
	if s.full(from) {
		s.out.held[from], s.out.only = true, false
		s.handTick()
		s.outTick()
		s.handTick()
	}
}

// partTick has a peer that leaves see to it that it is nowhere the only one: it invites
// another in its place. One that leaves for good then takes its Keeps back.
func (m *Machine) partTick() {
	if !m.leaving || m.now.Mono < m.partAt {
		return
	}
	m.partAt = m.now.Mono + m.cfg.Opinion
	for _, id := range sortedKeys(m.swarms) {
		s := m.swarms[id]
		switch {
		case !s.full(m.self) || s.state != protocol.JobRunning && s.state != protocol.JobDone:
		case s.sole():
			s.out.only = true
			clear(s.out.held)
			s.inviteTick()
		case s.out.only:
			s.askHolds()
		case m.forGood:
			s.unkeep()
		}
	}
}

// pushing tells whether a peer that leaves has to see to it first that another has a job.
func (s *swarm) pushing() bool {
	return (s.sole() || s.out.only && len(s.m.up) > 0) && (s.state == protocol.JobRunning || s.state == protocol.JobDone)
}

// sole tells whether no other connected peer keeps the chunks of a job that wants others to.
func (s *swarm) sole() bool {
	return s.full(s.m.self) && s.manifest().Replicas > 0 && len(s.m.up) > 0 &&
		!slices.ContainsFunc(s.ledger.keepers(), func(p protocol.PeerID) bool { return s.m.up[p] && s.full(p) })
}
