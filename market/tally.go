package market

import "github.com/compute-mesh/mesh/protocol"

// tally counts the tasks of a stage by who is to do something about them: what looks at a
// whole stage, which happens with every message, need not walk its spans.
type tally struct {
	done   uint64
	free   uint64                     // not done and without a holder
	held   map[protocol.PeerID]uint64 // not done, by holder
	failed uint64                     // not done, with attempts that failed
}

// counts adds n tasks of a cell to the tally; -n, as a two's complement, takes them away.
func (s *stage) counts(c *cell, n uint64) {
	t := &s.tally
	if c.done != nil {
		t.done += n
		return
	}
	if c.failed != nil {
		t.failed += n
	}
	h := s.holder(c)
	if h == "" {
		t.free += n
		return
	}
	if t.held[h] += n; t.held[h] == 0 {
		delete(t.held, h)
	}
}

// recount keeps the tally while spans i to j are replaced by others of the same tasks.
func (s *stage) recount(i, j int, next []span) {
	for k := i; k < j; k++ {
		s.counts(&s.spans[k].cell, -uint64(s.hi(k)-s.spans[k].lo))
	}
	end := s.hi(j - 1)
	for k := len(next) - 1; k >= 0; k-- {
		s.counts(&next[k].cell, uint64(end-next[k].lo))
		end = next[k].lo
	}
}

// holders tells how many tasks of a stage each holder has that are neither done nor
// exhausted, and calls free for those that nobody holds. The map is not the caller's to keep.
func (l *ledger) holders(s *stage, free func(protocol.Range, *cell)) map[protocol.PeerID]uint64 {
	if s.tally.free == 0 && s.tally.failed == 0 {
		return s.tally.held
	}
	held := map[protocol.PeerID]uint64{}
	s.each(s.all(), func(r protocol.Range, c *cell) bool {
		if c.done != nil || l.exhausted(c) {
			return true
		}
		if h := s.holder(c); h != "" {
			held[h] += r.Len()
		} else {
			free(r, c)
		}
		return true
	})
	return held
}

// crowded tells whether a grant could bring the spans of tasks that are not done over
// MaxSegments. Those of results go with their block's seal.
func (s *stage) crowded() bool {
	const most = MaxSegments - 2*protocol.MaxGrant
	if len(s.spans) <= most {
		return false
	}
	n := 0
	for i := range s.spans {
		if s.spans[i].done == nil {
			n++
		}
	}
	return n > most
}
