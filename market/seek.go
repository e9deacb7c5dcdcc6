package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// seekState is how a member looks for work: it asks a keeper who has some, bids to the
// holders that drain last, and waits longer each time that brings nothing.
type seekState struct {
	next    time.Duration // not before
	backoff time.Duration
	asked   protocol.PeerID // keeper whose answer is awaited
	at      time.Duration
	turn    int // which of the two keepers is asked next
	hints   []hint
	bids    []sentBid
	members uint32 // of the job, as a keeper said
}

type hint struct {
	protocol.Hint
	at    time.Duration // when it was as old as it says
	worth time.Duration // to one more bidder, as its keeper sees it
}

type sentBid struct {
	holder protocol.PeerID
	id     protocol.Sequence
	at     time.Duration
}

// bidsAtOnce is how many holders are asked at a time.
const bidsAtOnce = 2

func (k *seekState) clear() { *k = seekState{members: k.members} }

// soon forgets the waiting: something has changed.
func (k *seekState) soon() { k.next, k.backoff = 0, 0 }

// lost forgets what depended on a peer.
func (k *seekState) lost(p protocol.PeerID) {
	if k.asked == p {
		k.asked = ""
	}
	k.hints = slices.DeleteFunc(k.hints, func(h hint) bool { return h.Holder == p })
	k.bids = slices.DeleteFunc(k.bids, func(b sentBid) bool { return b.holder == p })
}

// hungry tells whether this peer is about to run dry, and if not when to look again.
func (m *Machine) hungry() (bool, time.Duration) {
	if m.alone != nil {
		return false, m.cfg.AskMin // by then it may have ended
	}
	var left time.Duration
	for _, s := range m.order {
		for _, sh := range s.shares {
			if sh == nil || !sh.able() {
				continue
			}
			n := sh.backlog()
			if n > 0 && sh.pace().task() == 0 {
				return false, m.cfg.AskMin
			}
			left += drain(n, sh.pace().rate(m.cfg.Slots))
		}
	}
	if len(m.runs) >= m.cfg.Slots {
		soonest := never
		for _, r := range m.runs {
			if r.sh.pace().task() == 0 {
				soonest = min(soonest, m.cfg.AskMin*2)
				continue
			}
			soonest = min(soonest, r.sh.expect(r))
		}
		left += soonest
	}
	if left <= m.cfg.AskMin {
		return true, 0
	}
	return false, left - m.cfg.AskMin
}

// seekTick looks for work if there is need of it.
func (s *swarm) seekTick() {
	m, k := s.m, &s.seek
	if !s.acting() || s.paused() || !s.able() {
		return
	}
	now := m.now.Mono
	if ok, in := m.hungry(); !ok {
		s.wakeIn(in)
		return
	}
	k.bids = slices.DeleteFunc(k.bids, func(b sentBid) bool { return now >= b.at+m.cfg.BidTime+m.cfg.Step })
	if len(k.bids) > 0 {
		s.wakeAt(k.bids[0].at + m.cfg.BidTime + m.cfg.Step)
		return
	}
	if k.asked != "" {
		if now < k.at+m.cfg.Beat {
			s.wakeAt(k.at + m.cfg.Beat)
			return
		}
		k.asked = ""
		k.turn++
	}
	if s.bid() {
		return
	}
	if now < k.next {
		s.wakeAt(k.next)
		return
	}
	k.backoff = min(max(k.backoff*2, m.cfg.AskMin), m.cfg.AskMax)
	k.next = now + m.jitter(k.backoff)
	s.wakeAt(k.next)
	s.ask()
}

// able tells whether any open stage with tasks left can run here.
func (s *swarm) able() bool {
	return slices.ContainsFunc(s.shares, func(sh *share) bool { return sh != nil && !sh.st.over() && sh.able() })
}

// ask asks a keeper for work; a keeper asks itself.
func (s *swarm) ask() {
	if s.keep != nil {
		s.workAnswer(s.m.self, s.answer(s.m.self))
		return
	}
	links := s.links()
	if len(links) == 0 {
		return
	}
	s.seek.asked = links[s.seek.turn%len(links)]
	s.seek.at = s.m.now.Mono
	s.m.send(s.seek.asked, &protocol.WorkRequest{Job: s.id, Known: s.known()})
	s.wakeIn(s.m.cfg.Beat)
}

// workAnswer takes a keeper's word on where there is work.
func (s *swarm) workAnswer(from protocol.PeerID, a *protocol.WorkAnswer) {
	k := &s.seek
	asked := k.asked == from
	if asked {
		k.asked = ""
	}
	switch {
	case from == s.m.self:
	case empty(a): // it tells when there is something
		k.next = s.m.now.Mono + s.m.cfg.AskIdle + s.m.jitter(s.m.cfg.AskIdle)
	case !asked: // what it tells of may be gone before us
		k.backoff, k.next = 0, s.m.now.Mono+s.m.jitter(s.m.cfg.AskMax/4)
	}
	k.members = a.Members
	s.addHints(a.Hints)
	for _, o := range a.Open {
		s.offer(o, true)
	}
	s.heardFrom(from)
	s.bid()
	s.wakeAt(s.m.now.Mono)
}

// addHints takes hints; of one holder and stage the newest always wins.
func (s *swarm) addHints(list []protocol.Hint) {
	for _, h := range list {
		if h.Holder == s.m.self || s.share(h.Stage) == nil {
			continue
		}
		i := slices.IndexFunc(s.seek.hints, func(o hint) bool { return o.Holder == h.Holder && o.Stage == h.Stage })
		at := s.m.now.Mono - time.Duration(h.Age)*time.Millisecond
		switch {
		case i < 0:
			if len(s.seek.hints) < 4*protocol.MaxHints {
				s.seek.hints = append(s.seek.hints, hint{Hint: h, at: at})
			}
		case s.seek.hints[i].Sequence.Less(h.Sequence):
			s.seek.hints[i] = hint{Hint: h, at: at}
		}
	}
}

// left is when, counted from now, the holder of a hint runs dry: of tasks to grant, or
// of tasks that another peer may end sooner.
func (h *hint) left(now time.Duration) time.Duration {
	last := time.Duration(h.Tail) * time.Millisecond
	if h.Backlog > 0 {
		last += drain(h.Backlog, h.Rate)
	}
	return max(0, last-max(0, now-h.at))
}

// bid bids to the holders that were named, in that order, where it helps: where they would
// still have work when one task is done here. Who has nothing but running tasks is asked
// for a copy, by a peer with a free slot, and one at a time: two would come at once, and
// one be refused. Hints are used once. It tells whether a bid went out.
func (s *swarm) bid() bool {
	m, k := s.m, &s.seek
	if ok, _ := m.hungry(); !ok || len(k.bids) > 0 || !s.acting() || s.paused() {
		return false
	}
	now := m.now.Mono
	free := len(m.runs) < m.cfg.Slots
	for len(k.hints) > 0 && len(k.bids) < bidsAtOnce {
		h := k.hints[0]
		k.hints = k.hints[1:]
		sh := s.share(h.Stage)
		if sh == nil || !sh.able() || !m.alive(h.Holder) || h.left(now) == 0 || h.left(now) < sh.pace().task() ||
			h.Backlog == 0 && (sh.pace().task() == 0 || !free || len(k.bids) > 0) {
			continue
		}
		b := sentBid{h.Holder, m.sequence(), now}
		k.bids = append(k.bids, b)
		s.wakeAt(now + m.cfg.BidTime + m.cfg.Step)
		m.send(h.Holder, &protocol.Bid{
			Job: s.id, ID: b.id, Slots: uint32(m.cfg.Slots), Rate: sh.pace().rate(m.cfg.Slots), Memory: m.cfg.Memory,
			Groups: s.groupsOf(m.self) | s.invite.coming, Stage: h.Stage,
		})
		if h.Backlog == 0 || h.Backlog >= s.size() { // that one has enough for all
			break
		}
	}
	k.hints = nil
	return len(k.bids) > 0
}

// grant takes what a holder handed over.
func (s *swarm) grant(from protocol.PeerID, g *protocol.Grant) {
	s.seek.bids = slices.DeleteFunc(s.seek.bids, func(b sentBid) bool { return b.holder == from && b.id == g.Bid })
	n, now, more := uint64(0), s.m.now.Mono, hint{}
	for i := range g.Segments {
		rec := &g.Segments[i]
		b, ok := rec.Body.(*protocol.Segment)
		if !ok || b.Holder != s.m.self || rec.Signer != from {
			continue
		}
		n += b.Range.Len()
		more = hint{Hint: protocol.Hint{Holder: from, Stage: b.StageRef, Backlog: g.Left}, at: now}
		// The keepers are told by both sides: the granter may be gone in a moment. A keeper has
		// told the others, or they hear of it by our beats.
		if changed, _ := s.learn(rec, from); changed && s.keep == nil && !s.isKeeper(from) {
			if links := s.links(); len(links) > 0 {
				s.m.tellSoon(links[0], rec)
			}
		}
	}
	s.seek.soon()
	if n > 0 && g.Left/(2*n) >= s.size() { // as much for every member, and again: it is asked next
		s.seek.hints = []hint{more}
	}
	s.link.next = now
	s.m.room = true
	s.wakeAt(now)
}

// refusal takes other holders' names instead.
func (s *swarm) refusal(from protocol.PeerID, r *protocol.Refusal) {
	n := len(s.seek.bids)
	s.seek.bids = slices.DeleteFunc(s.seek.bids, func(b sentBid) bool { return b.holder == from && b.id == r.Bid })
	if len(s.seek.bids) == n {
		s.declined(from, r.Bid)
		return
	}
	s.addHints(r.Hints)
	s.wakeAt(s.m.now.Mono)
}
