package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// gazette is the records that wait to be told to a peer, and how often it may be told of
// what nobody waits for: so a large swarm gets coarser news, not more of them.
type gazette struct {
	jobs   map[protocol.JobID][]protocol.Record
	urgent bool
	credit int           // News that may go at once
	since  time.Duration // when credit was counted
}

func (m *Machine) gazetteOf(p protocol.PeerID) *gazette {
	g := m.news[p]
	if g == nil {
		g = &gazette{jobs: map[protocol.JobID][]protocol.Record{}, credit: m.cfg.NewsBurst, since: m.now.Mono}
		m.news[p] = g
	}
	return g
}

// tell adds a record to the news for a peer, which go with the next Ready.
func (m *Machine) tell(to protocol.PeerID, rec *protocol.Record) {
	if m.tellSoon(to, rec) {
		m.news[to].urgent = true
	}
}

// tellSoon adds a record to the news for a peer that may wait until there is credit. It
// tells whether there is such a peer to tell: not this one, nor none.
func (m *Machine) tellSoon(to protocol.PeerID, rec *protocol.Record) bool {
	if to == m.self || to == "" {
		return false
	}
	g, id := m.gazetteOf(to), rec.Body.JobID()
	for _, r := range g.jobs[id] {
		if r.Hash == rec.Hash {
			return true
		}
	}
	g.jobs[id] = append(g.jobs[id], *rec)
	m.pending[to] = g
	return true
}

// tellAll tells a peer all that is visible of a job, with the next Ready: what waits for it is
// part of that, and what is told next may refer to it.
func (m *Machine) tellAll(to protocol.PeerID, s *swarm) {
	g := m.gazetteOf(to)
	g.jobs[s.id] = s.ledger.records()
	g.urgent = true
	m.pending[to] = g
}

// urge has what waits for a peer told with the next Ready.
func (m *Machine) urge(to protocol.PeerID) {
	if g := m.news[to]; g != nil && len(g.jobs) > 0 {
		g.urgent = true
	}
}

// newsTime is in how much time a credit comes: in a swarm of n members n times NewsGap, as
// a keeper hears of more, and the other keepers are to get longer News of it, not more.
func (m *Machine) newsTime() time.Duration {
	t := m.cfg.NewsTime
	for _, s := range m.order {
		t = max(t, min(time.Duration(s.size())*m.cfg.NewsGap, m.cfg.NewsMax))
	}
	return t
}

// spread is how long a record may take to come to every keeper when all goes well: it
// waits for credit, and is told once more.
func (m *Machine) spread() time.Duration { return m.newsTime() + m.cfg.Beat }

// refill counts the credit up to now.
func (m *Machine) refill(g *gazette) {
	t := m.newsTime()
	n := int((m.now.Mono - g.since) / t)
	g.credit = min(g.credit+n, m.cfg.NewsBurst)
	g.since += time.Duration(n) * t
}

// flushNews sends the news that are urgent or have credit.
func (m *Machine) flushNews() {
	if len(m.pending) == 0 {
		return
	}
	for _, to := range sortedKeys(m.pending) {
		g := m.pending[to]
		m.refill(g)
		if !g.urgent && g.credit == 0 {
			continue
		}
		for _, id := range sortedKeys(g.jobs) {
			m.sendRecords(to, id, m.standing(id, g.jobs[id]))
		}
		clear(g.jobs)
		delete(m.pending, to)
		g.urgent, g.credit = false, max(0, g.credit-1)
	}
}

// forgetCredit lets go of the peers that have all the credit there is.
func (m *Machine) forgetCredit() {
	for _, to := range sortedKeys(m.news) {
		g := m.news[to]
		if m.refill(g); g.credit == m.cfg.NewsBurst && len(g.jobs) == 0 {
			delete(m.news, to)
		}
	}
}

// standing leaves out the records that something else stands for by now: they would add
// nothing, and what they refer to may be gone.
func (m *Machine) standing(id protocol.JobID, recs []protocol.Record) []protocol.Record {
	s := m.swarms[id]
	if s == nil {
		return recs
	}
	return slices.DeleteFunc(recs, func(r protocol.Record) bool { return !s.ledger.stands(&r) })
}

// newsDue is when the next news that wait have credit; never: none wait.
func (m *Machine) newsDue() time.Duration {
	at := never
	if len(m.pending) == 0 {
		return at
	}
	t := m.newsTime()
	for _, g := range m.pending {
		at = min(at, g.since+t)
	}
	return at
}

// sendRecords sends records as News of at most protocol.MaxNews bytes each.
func (m *Machine) sendRecords(to protocol.PeerID, id protocol.JobID, recs []protocol.Record) {
	for len(recs) > 0 {
		n, size := 0, 0
		for n < len(recs) && (n == 0 || size+len(recs[n].Raw) <= protocol.MaxNews) {
			size += len(recs[n].Raw)
			n++
		}
		m.send(to, &protocol.News{Job: id, Records: recs[:n:n]})
		recs = recs[n:]
	}
}

// pass sends a record on: a member's up to its keepers, a keeper's across to the
// others and down to the members it concerns. What came from a keeper is not sent to
// keepers again: exchange mends what got lost.
func (s *swarm) pass(rec *protocol.Record, from protocol.PeerID) {
	tell := func(to protocol.PeerID) { s.m.tellSoon(to, rec) }
	pressing := s.pressing(rec)
	if pressing {
		tell = func(to protocol.PeerID) { s.m.tell(to, rec) }
	}
	if s.keep == nil {
		if links := s.links(); from == s.m.self && len(links) > 0 {
			if !pressing {
				links = links[:1] // it tells the others; and if it dies, we do
			}
			for _, k := range links {
				tell(k)
			}
		}
		return
	}
	if from == s.m.self || !s.isKeeper(from) {
		for _, k := range s.others() {
			if k != from {
				tell(k)
			}
		}
	}
	for _, p := range s.concerned(rec) {
		if p != from && !s.isKeeper(p) {
			s.tellStates(p, rec)
			if ofInput(rec) {
				s.m.tellSoon(p, rec)
			} else {
				s.m.tell(p, rec)
			}
		}
	}
	if b, ok := rec.Body.(*protocol.Segment); ok && b.Cause == protocol.CauseGrant && !s.isKeeper(b.Holder) {
		s.tellStates(b.Holder, rec)
	}
}

// fewLeft is how many tasks of a block are not done when news of its results no longer wait:
// the seal does. It is a small part of a block's tasks.
const fewLeft = protocol.BlockSize / 16

// pressing tells whether somebody waits for a record: all but grants, checkpoints, what a
// keeper hears of who keeps the input, and results that are neither among the last of a block nor of the work of this peer.
func (s *swarm) pressing(rec *protocol.Record) bool {
	switch b := rec.Body.(type) {
	case *protocol.Checkpoint:
		return s.m.leaving
	case *protocol.Keep, *protocol.Unkeep:
		return s.keep == nil || !ofInput(rec)
	case *protocol.Segment:
		return s.m.leaving || b.Cause != protocol.CauseGrant
	case *protocol.Done:
		sh := s.share(b.StageRef)
		if s.m.leaving || sh == nil {
			return true
		}
		if rec.Signer == s.m.self && sh.ending() {
			return true
		}
		left := uint64(fewLeft)
		if s.keep == nil { // which knows but what it did itself
			left = 0
		}
		for n := b.Range.Lo.Block(); n <= (b.Range.Hi - 1).Block(); n++ {
			if sh.st.nearly(n, left) {
				return true
			}
		}
		return false
	}
	return true
}

// maxOffered bounds the members that are told of a range without holder, and that it has
// one again: those that may adopt it first. The others find it when they ask for work.
const maxOffered = 16

// concerned are the members that are told of a record.
func (s *swarm) concerned(rec *protocol.Record) []protocol.PeerID {
	switch b := rec.Body.(type) {
	case *protocol.Control, *protocol.Keep, *protocol.Unkeep, *protocol.Reopen:
		return s.watch.list()
	case *protocol.Segment:
		if b.Holder != "" && b.Cause != protocol.CauseAdopt {
			return nil // the holder has it from who signed it or, where that got lost, after its next beat
		}
		near := ranked(adoptDuty, s.id, adoptPlace(b.StageRef, b.Range.Lo), s.watch.list())
		near = near[:min(len(near), maxOffered)]
		if s.watch.members[b.Replaced] != nil && !slices.Contains(near, b.Replaced) {
			near = append(near, b.Replaced)
		}
		if b.Holder == "" {
			return near
		}
		for _, p := range s.watch.takeOffers(b) {
			if s.watch.members[p] != nil && !slices.Contains(near, p) {
				near = append(near, p)
			}
		}
		return near
	case *protocol.Failed:
		if state, _ := s.ledger.state(); state == protocol.JobFailed {
			return s.watch.list()
		}
		return s.holderOf(b.StageRef, b.Task, rec.Signer)
	case *protocol.Checkpoint:
		return s.holderOf(b.StageRef, b.Task, rec.Signer)
	case *protocol.Seal:
		st := s.ledger.stage(b.StageRef)
		if int(b.Level) == job.TopLevel(s.ledger.tasks(b.Stage)) || st != nil && st.top != nil && b.Life > st.top.Body.(*protocol.Seal).Life {
			return s.watch.list()
		}
	}
	return nil
}

// holderOf is who should run a task, unless it is but or not a member.
func (s *swarm) holderOf(ref protocol.StageRef, t protocol.TaskIndex, but protocol.PeerID) []protocol.PeerID {
	st := s.ledger.stage(ref)
	if st == nil || uint64(t) >= st.n {
		return nil
	}
	h := st.holder(st.at(t))
	if h == but || s.watch.members[h] == nil {
		return nil
	}
	return []protocol.PeerID{h}
}
