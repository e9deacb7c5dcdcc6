package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// A keeper's way out, of each chunk group by itself. Where more keepers of one are connected
// than the job wants, as after a partition, those at the end of its rendezvous order take
// their Keep back; who leaves the mesh for good does so at any place in it. The chunks go only
// when as many other keepers as the job has replicas have said, since then, that they hold
// all of the group.

// outState is how far this peer is on its way out.
type outState struct {
	many  [protocol.MaxGroups]time.Duration     // since when it is one too many for a group; never: it is not
	going protocol.GroupSet                     // taken back, and the chunks are still here
	held  map[protocol.PeerID]protocol.GroupSet // who has said since of which groups that it holds them
	ask   time.Duration                         // when they are asked next
	only  protocol.GroupSet                     // this peer is leaving, and nobody else has said that it holds them

	crowded bool              // this peer has no room for the job
	missed  protocol.GroupSet // of what it has no room for, what nobody held when last asked
	since   time.Duration     // when a Keep was taken back
}

func (o *outState) init() {
	*o = outState{held: map[protocol.PeerID]protocol.GroupSet{}, crowded: o.crowded}
	for g := range o.many {
		o.many[g] = never
	}
}

// hasLeft tells whether a peer has taken back every Keep of the ledger that is known of it.
func (s *swarm) hasLeft(p protocol.PeerID) bool {
	return s.ledger.keepOf(p) == nil && slices.ContainsFunc(sorted(s.ledger.unkeeps), func(u *protocol.Record) bool { return u.Signer == p })
}

// takenBack is the groups that this peer kept once and does not any more.
func (s *swarm) takenBack() (groups protocol.GroupSet) {
	for _, k := range s.ledger.keeps {
		if k.Signer == s.m.self {
			groups |= dutyOf(k.Body.(*protocol.Keep).Groups)
		}
	}
	return groups &^ s.duty()
}

// dutyOf is what a Keep or an Unkeep of groups is about: of none, the ledger.
func dutyOf(groups protocol.GroupSet) protocol.GroupSet {
	if groups == 0 {
		return group0
	}
	return groups
}

// surplus tells whether as many keepers of a group as there should be are connected that are
// to stay rather than this peer: the submitter's, then those before it in the group's order;
// where it has the ledger alone, all.
func (s *swarm) surplus(g int) bool {
	own, submitter := s.groupsOf(s.m.self).Has(g), s.manifest().Submitter
	if own && submitter == s.m.self {
		return false
	}
	n, wanted := 0, max(1, s.manifest().Replicas)
	if g == 0 {
		wanted = s.wanted()
	}
	mine := rendezvous("keep", s.placed(g), uint64(g), s.m.self)
	for _, k := range s.ledger.roster().stores {
		switch {
		case k == s.m.self || !s.m.up[k] || !s.groupsOf(k).Has(g):
		case k == submitter:
			if g == 0 { // of the others there are to be so many beside it
				n++
			}
		case !own || rendezvous("keep", s.placed(g), uint64(g), k) < mine:
			n++
		}
	}
	return n >= wanted
}

// surplusTick takes this peer's Keep of a group back once it has been one too many for
// Hysteresis.
func (s *swarm) surplusTick() {
	o, now := &s.out, s.m.now.Mono
	s.outTick()
	s.handTick()
	quiet := s.listening > 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone
	var over protocol.GroupSet
	each(s.duty(), func(g int) {
		if quiet || !s.surplus(g) {
			o.many[g] = never
			return
		}
		if o.many[g] == never {
			o.many[g] = now
		}
		if due := o.many[g] + s.m.cfg.Hysteresis; now < due {
			s.wakeAt(due)
		} else {
			over |= group0 << g
		}
	})
	if over != 0 {
		s.unkeep(over)
	}
}

// unkeep takes back this peer's Keeps of groups, and with group 0 those of the ledger alone.
func (s *swarm) unkeep(groups protocol.GroupSet) {
	for _, k := range sorted(s.ledger.keeps) {
		left, ledger := s.ledger.left(k)
		if k.Signer == s.m.self && (left&groups != 0 || left == 0 && ledger && groups.Has(0)) {
			s.sign(&protocol.Unkeep{Job: s.id, Keep: k.Hash, Groups: left & groups, Sequence: s.m.sequence()})
		}
	}
}

// unkeepLearned makes this peer a member like others, or has a keeper look for one in the
// place of another: who says that it goes is no short absence.
func (s *swarm) unkeepLearned(rec *protocol.Record) {
	groups := dutyOf(rec.Body.(*protocol.Unkeep).Groups)
	if rec.Signer != s.m.self {
		each(groups, func(g int) { s.invite.few[g] = s.m.now.Mono - s.m.cfg.Hysteresis })
		return
	}
	was := s.keep
	s.keep = s.ledger.keepOf(s.m.self)
	if groups &^= s.duty(); groups == 0 {
		return
	}
	s.out.going |= groups
	s.out.since, s.out.ask = s.m.now.Mono, 0
	clear(s.out.held)
	each(groups, func(g int) { s.out.many[g] = never })
	if was == nil || s.keep != nil {
		return
	}
	s.store.init()
	s.sealer.init()
	s.watch.init()
	clear(s.invite.asked)
	s.seek.soon()
	s.link.next = s.m.now.Mono
}

// outTick asks the keepers of what this peer has taken back whether they hold it all, and lets
// go of the chunks when enough of them do and nothing here needs them.
func (s *swarm) outTick() {
	o := &s.out
	o.going &^= s.duty() // it was invited again
	if o.going == 0 || s.invite.coming != 0 {
		return // or it may be in a moment
	}
	enough := max(1, s.manifest().Replicas)
	if waited := o.since + s.m.cfg.Hysteresis; o.crowded && s.m.now.Mono >= waited {
		enough = 1
	} else if o.crowded {
		s.wakeAt(waited)
	}
	free := s.confirmedBy(enough)
	if s.atWork() {
		if free == o.going {
			return
		}
		free &^= group0
	}
	switch {
	case free == o.going && s.duty() == 0:
		o.init()
		s.m.drop(Drop{Job: s.id})
		s.m.changed(s.id)
		return
	case free != 0:
		o.going &^= free
		s.m.drop(Drop{Job: s.id, Groups: free})
		s.m.changed(s.id)
	}
	if s.m.now.Mono < o.ask {
		s.wakeAt(o.ask)
		return
	}
	o.ask = s.m.now.Mono + s.m.cfg.KeepWait
	s.wakeAt(o.ask)
	s.askHolds()
}

// confirmedBy is the groups taken back of which so many keepers have said that they hold them.
func (s *swarm) confirmedBy(keepers int) (groups protocol.GroupSet) {
	n := counts{}
	for p, held := range s.out.held {
		each(held&s.groupsOf(p), func(g int) { n[g]++ })
	}
	each(s.out.going, func(g int) {
		if n[g] >= keepers {
			groups |= group0 << g
		}
	})
	return groups
}

// askHolds asks the keepers that have not said so whether they hold everything.
func (s *swarm) askHolds() {
	wanted := s.out.going | s.out.only
	if s.out.crowded {
		wanted |= s.groupsOf(s.m.self)
	}
	for _, k := range s.ledger.roster().stores {
		groups := wanted & s.groupsOf(k) &^ s.out.held[k]
		if k == s.m.self || !s.m.up[k] || groups == 0 {
			continue
		}
		for _, u := range sorted(s.ledger.unkeeps) {
			if u.Signer == s.m.self {
				s.m.tell(k, u)
			}
		}
		s.m.send(k, &protocol.KeepRequest{Job: s.id, Groups: groups, Leaving: true})
	}
}

// atWork tells whether this peer has tasks, results or states of the job under way.
func (s *swarm) atWork() bool {
	return slices.ContainsFunc(s.shares, func(sh *share) bool {
		return sh != nil && len(sh.running)+len(sh.finished)+len(sh.pages)+len(sh.progress) > 0
	})
}

// holds is those of groups of which this peer has all that their keepers are to have: the
// input, which came with its Keep, and in group 0 everything that the ledger names since.
func (s *swarm) holds(groups protocol.GroupSet) protocol.GroupSet {
	groups &= s.groupsOf(s.m.self)
	if s.store.mend.due || s.m.leaving || s.out.crowded || s.running() && s.listening > 0 {
		return 0
	}
	for _, k := range sortedKeys(s.store.pages) {
		if p := s.store.pages[k]; !p.here && p.rng.Lo < p.rng.Hi {
			return groups &^ group0
		}
	}
	for _, k := range sortedKeys(s.store.seals) {
		if !s.store.seals[k].here {
			return groups &^ group0
		}
	}
	return groups
}

// answerLeaver tells a peer that has taken its Keep back whether it may let go.
func (m *Machine) answerLeaver(from protocol.PeerID, q *protocol.KeepRequest) {
	a := &protocol.KeepAnswer{Job: q.Job, Reason: "it does not hold all of the job"}
	if s := m.swarms[q.Job]; s != nil {
		if held := s.holds(q.Groups); held != 0 {
			a = &protocol.KeepAnswer{Job: q.Job, Accepted: true, Holds: true, Groups: held}
			m.out.Sync = true
		}
	}
	m.send(from, a)
}

// confirmed hears that a keeper holds all of some groups.
func (s *swarm) confirmed(from protocol.PeerID, groups protocol.GroupSet) {
	if groups &= s.groupsOf(from); groups != 0 {
		s.out.held[from] |= groups
		s.out.only &^= groups
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
		sole := s.sole()
		switch {
		case s.groupsOf(m.self) == 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone:
		case sole != 0:
			s.out.only |= sole
			clear(s.out.held)
			need := &counts{}
			each(sole, func(g int) { need[g] = s.manifest().Replicas })
			s.place(need)
		case s.out.only != 0:
			s.askHolds()
		case m.forGood:
			s.unkeep(s.allGroups())
		}
	}
}

// pushing tells whether a peer that leaves has to see to it first that another has a job.
func (s *swarm) pushing() bool {
	return (s.sole() != 0 || s.out.only != 0 && len(s.m.up) > 0) && (s.state == protocol.JobRunning || s.state == protocol.JobDone)
}

// sole is the groups that no other connected peer keeps, of a job that wants others to.
func (s *swarm) sole() protocol.GroupSet {
	groups := s.groupsOf(s.m.self)
	if s.manifest().Replicas == 0 || len(s.m.up) == 0 {
		return 0
	}
	for _, p := range s.ledger.roster().stores {
		if s.m.up[p] {
			groups &^= s.groupsOf(p)
		}
	}
	return groups
}
