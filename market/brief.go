package market

import (
	"crypto/sha256"

	"github.com/compute-mesh/mesh/protocol"
)

// brief tells a member what it must know to take part: control, keeps, top seals, and
// why the job failed.
func (s *swarm) brief(p protocol.PeerID) {
	for _, set := range []map[protocol.Hash]*protocol.Record{s.ledger.keeps, s.ledger.unkeeps} {
		for _, r := range sorted(set) {
			s.m.tell(p, r)
		}
	}
	for _, r := range []*protocol.Record{s.ledger.end, s.ledger.order, s.ledger.retry} {
		if r != nil {
			s.m.tell(p, r)
		}
	}
	for _, st := range s.ledger.stages {
		if st == nil {
			continue
		}
		if st.top != nil {
			s.m.tell(p, st.top)
		} else if rec := s.ledger.failure(st); rec != nil {
			for _, r := range st.at(failedOf(rec).Task).failed.all() {
				s.m.tell(p, r)
			}
		}
	}
}

// known is a hash of what brief tells, but for failures: SPEC.md section 8 has it.
func (s *swarm) known() protocol.Hash {
	h := sha256.New()
	add := func(r *protocol.Record) {
		var hash protocol.Hash
		if r != nil {
			hash = r.Hash
		}
		h.Write(hash[:])
	}
	l := s.ledger
	for _, set := range []map[protocol.Hash]*protocol.Record{l.keeps, l.unkeeps} {
		for _, r := range sorted(set) {
			add(r)
		}
	}
	add(l.end)
	add(l.order)
	add(l.retry)
	for _, st := range l.stages {
		if st == nil {
			add(nil)
		} else {
			add(st.top)
		}
	}
	return protocol.Hash(h.Sum(nil))
}
