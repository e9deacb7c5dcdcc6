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
	a := &protocol.WorkAnswer{Job: s.id, Members: uint32(len(s.watch.members) + 1), State: s.state}
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
				a.Open = append(a.Open, protocol.Open{Stage: sh.st.ref, Life: c.life, Range: r, Epoch: c.epoch()})
			}
		})
		for h, n := range open {
			if h != p && s.m.alive(h) {
				hints = s.best(hints, s.hintOf(sh, h, n))
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
// every idle peer would be sent to the same few, and all but the first in vain. A running
// task has one copy at a time.
func (s *swarm) best(list []hint, h hint) []hint {
	h.worth = h.left(s.m.now.Mono) / time.Duration(1+s.watch.named[h.Holder])
	if h.worth == 0 || h.Backlog == 0 && s.watch.named[h.Holder] > 0 {
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
