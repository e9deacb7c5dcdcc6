package market

import (
	"cmp"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// answer is where there is work for p: the holders with the most left, and the ranges
// that have none.
func (s *swarm) answer(p protocol.PeerID) *protocol.WorkAnswer {
	a := &protocol.WorkAnswer{Job: s.id, Members: uint32(s.size()), State: s.state}
	if !s.running() {
		return a
	}
	var hints []hint
	for _, sh := range s.shares {
		if sh == nil || sh.st.over() {
			continue
		}
		open := s.ledger.holders(sh.st, func(r protocol.Range, c *cell) {
			if len(a.Open) < protocol.MaxOpen && s.cooling(sh.st.ref.Stage, r.Lo, c) <= s.m.now.Mono {
				o := protocol.Open{Stage: sh.st.ref, Life: c.life, Range: r, Epoch: c.epoch()}
				if p == s.m.self || s.watch.mayOffer(p, &o, s.m.now.Mono, 2*time.Duration(s.m.cfg.Steps)*s.m.cfg.Step) {
					a.Open = append(a.Open, o)
				}
			}
		})
		task := s.taskAt(p, sh.st.ref)
		for h, n := range open {
			if h != p && s.m.alive(h) {
				hints = s.best(hints, s.hintOf(sh, h, n), task)
			}
		}
	}
	for i := range hints {
		a.Hints = append(a.Hints, hints[i].Hint)
		if i < bidsAtOnce {
			s.watch.named[hints[i].Holder]++
		}
	}
	return a
}

// best adds a hint to the list of those that are worth most, if it is one of them. What a
// holder has is as good as shared with those that it was named to since it last said: or
// every idle peer would be sent to the same few, and all but the first in vain. One that is
// worth less than a task takes is none. A running task has one copy at a time.
func (s *swarm) best(list []hint, h hint, task time.Duration) []hint {
	h.worth = h.left(s.m.now.Mono) / time.Duration(1+s.watch.named[h.Holder])
	if h.worth == 0 || h.worth < task || h.Backlog == 0 && s.watch.named[h.Holder] > 0 {
		return list
	}
	i, _ := slices.BinarySearchFunc(list, h, func(a, b hint) int {
		return cmp.Or(cmp.Compare(b.worth, a.worth), cmp.Compare(a.Stage.Stage, b.Stage.Stage), cmp.Compare(a.Holder, b.Holder))
	})
	if i == protocol.MaxHints {
		return list
	}
	list = slices.Insert(list, i, h)
	return list[:min(len(list), protocol.MaxHints)]
}

// hintOf is what a holder has to give: by its last beat or, before its first, by the ledger.
func (s *swarm) hintOf(sh *share, h protocol.PeerID, open uint64) hint {
	now := s.m.now.Mono
	if h == s.m.self {
		return hint{Hint: protocol.Hint{Holder: h, Stage: sh.st.ref, Backlog: sh.backlog(), Rate: sh.pace().rate(s.m.cfg.Slots), Sequence: s.m.sequence(), Tail: sh.tail()}, at: now}
	}
	if w := s.watch.members[h]; w != nil {
		for i := range w.work {
			if k := &w.work[i]; k.Stage == sh.st.ref {
				age := max(0, now-w.at)
				return hint{Hint: protocol.Hint{
					Holder: h, Stage: k.Stage, Backlog: min(k.Backlog, open), Rate: k.Rate, Sequence: w.seq,
					Age: uint32(age / time.Millisecond), Tail: k.Tail,
				}, at: w.at}
			}
		}
	}
	return hint{Hint: protocol.Hint{Holder: h, Stage: sh.st.ref, Backlog: open}, at: now}
}

// taskAt is how long a task of a stage takes at a member at least, as far as it has said.
func (s *swarm) taskAt(p protocol.PeerID, ref protocol.StageRef) time.Duration {
	if w := s.watch.members[p]; w != nil {
		for i := range w.work {
			if k := &w.work[i]; k.Stage == ref && k.Rate > 0 {
				return 1000 * time.Second / time.Duration(k.Rate)
			}
		}
	}
	return 0
}

// workRequest answers a peer that looks for work, and makes it a member.
func (s *swarm) workRequest(from protocol.PeerID, q *protocol.WorkRequest) {
	if s.keep == nil { // it may have been a keeper, or is asked by who knows of none
		if len(s.ledger.keepers()) > 0 && q.Known != s.known() {
			s.brief(from)
		}
		return
	}
	w := s.memberSeen(from)
	// A keeper asks itself: one that asks another has forgotten that it is one.
	a := s.answer(from)
	if q.Known != s.known() || s.state == protocol.JobFailed {
		s.brief(from)
	}
	if s.running() { // a grant may have been lost on its way
		s.remindOf(from, w, w.work)
	}
	for _, o := range a.Open {
		s.share(o.Stage).st.each(o.Range, func(_ protocol.Range, c *cell) bool {
			s.tellPast(from, c)
			return true
		})
	}
	s.m.flushNews()
	w.waits = s.running() && empty(a)
	s.m.send(from, a)
}

// empty tells whether an answer names nothing to ask for.
func empty(a *protocol.WorkAnswer) bool { return len(a.Hints)+len(a.Open) == 0 }

// maxAgain bounds the members that are told in half a beat that there is work now: each takes
// a look at all holders.
const maxAgain = 16

// answerAgain answers the members that were told that there is nothing, once there is: the
// fastest first, as they end soonest what others run. Where there is nothing for one, there
// is none for slower ones.
func (s *swarm) answerAgain() {
	var list []protocol.PeerID
	for _, p := range s.watch.list() {
		if s.watch.members[p].waits && s.m.alive(p) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b protocol.PeerID) int {
		return cmp.Compare(s.watch.members[b].rate(), s.watch.members[a].rate())
	})
	for _, p := range list[:min(len(list), maxAgain)] {
		a := s.answer(p)
		if empty(a) {
			return
		}
		s.watch.members[p].waits = false
		s.m.send(p, a)
	}
}

// rate is the highest that a member has said for a stage.
func (w *member) rate() (most protocol.Rate) {
	for i := range w.work {
		most = max(most, w.work[i].Rate)
	}
	return most
}
