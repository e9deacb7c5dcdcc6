package market

import (
	"fmt"
	"github.com/compute-mesh/mesh/protocol"
)

func (m *Machine) Dbg(id protocol.JobID) string {
	s := m.swarms[id]
	if s == nil {
		return "none"
	}
	out := fmt.Sprintf("keep=%v listening=%v due=%v asked=%q bids=%v hints=%d next=%v stand=%d adopts=%v runs=%d\n", s.keep != nil, s.listening, s.due, s.seek.asked, s.seek.bids, len(s.seek.hints), s.seek.next, len(s.stand.bids), s.adopts, len(m.runs))
	for i, sh := range s.shares {
		if sh == nil {
			continue
		}
		out += fmt.Sprintf("  stage %d cursor=%d running=%d fin=%d pages=%d avoid=%v held=%d\n", i, sh.cursor, len(sh.running), len(sh.finished), len(sh.pages), sh.avoid, sh.heldOpen())
		for _, p := range sh.pages {
			out += fmt.Sprintf("   page %v receipts=%d asked=%d\n", p.Range, len(p.receipts), len(p.asked))
		}
		sh.st.each(sh.st.all(), func(r protocol.Range, c *cell) bool {
			if c.done == nil {
				out += fmt.Sprintf("   open %v holder=%s epoch=%d\n", r, sh.st.holder(c), c.epoch())
			}
			return true
		})
	}
	return out
}
