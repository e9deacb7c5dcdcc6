package market

import (
	"maps"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// An order of the owner is given at one peer, which may be cut off from the keepers just
// then, or gone a moment later. So whoever hears of one before the keepers do owes it to
// them: it tells each of them again until that one acknowledges it. Among keepers the
// exchange of digests does the same.

// orderTime bounds, in ms, how long a peer keeps a job that was cancelled because of
// keepers that have not acknowledged it: who is away for longer is told when it speaks of it.
const orderTime = int64(time.Hour / time.Millisecond)

// maxOwing bounds the peers that hear from a keeper as soon as nothing runs there for a job that
// was ended: who gives the order, and a few who pass it on. Another tells it again, and hears then.
const maxOwing = 16

// owe has the keepers told of an order that they may not have.
func (s *swarm) owe(rec *protocol.Record) {
	if s.owed[rec.Hash] == nil {
		s.owed[rec.Hash] = map[protocol.PeerID]bool{}
		s.owedAt = s.m.now.Mono + s.m.cfg.KeepWait // they are told now
		s.wakeAt(s.owedAt)
	}
}

// standing are the orders that count.
func (l *ledger) standing() []*protocol.Record {
	var list []*protocol.Record
	for _, rec := range []*protocol.Record{l.end, l.order, l.retry} {
		if rec != nil && !slices.Contains(list, rec) {
			list = append(list, rec)
		}
	}
	return list
}

// orderTick tells the keepers again what they have not acknowledged.
func (s *swarm) orderTick() {
	if len(s.owed) == 0 {
		return
	}
	if s.keep != nil {
		clear(s.owed)
		return
	}
	if s.m.now.Mono < s.owedAt {
		s.wakeAt(s.owedAt)
		return
	}
	s.owedAt = s.m.now.Mono + s.m.cfg.KeepWait
	keepers := s.keepers()
	astray := !slices.ContainsFunc(keepers, s.m.alive) && s.m.now.Mono >= s.strayAt
	if astray {
		s.strayAt = s.m.now.Mono + s.m.cfg.Orphan
	}
	for _, rec := range s.ledger.standing() {
		had := s.owed[rec.Hash]
		if had == nil {
			continue
		}
		if astray { // others keep the job by now, whom somebody near may know
			s.m.tellNear(rec)
		}
		for _, k := range keepers {
			if !had[k] && s.m.alive(k) {
				s.m.tell(k, rec)
			}
		}
	}
	s.settleOwed(keepers)
	if len(s.owed) > 0 {
		s.wakeAt(s.owedAt)
	}
}

// settleOwed forgets the orders that all keepers have, or that no longer count.
func (s *swarm) settleOwed(keepers []protocol.PeerID) {
	standing := s.ledger.standing()
	maps.DeleteFunc(s.owed, func(h protocol.Hash, had map[protocol.PeerID]bool) bool {
		counts := slices.ContainsFunc(standing, func(r *protocol.Record) bool { return r.Hash == h })
		missing := slices.ContainsFunc(keepers, func(k protocol.PeerID) bool { return !had[k] })
		return !counts || len(keepers) > 0 && !missing
	})
}

// keeperHas notes that a keeper has an order.
func (s *swarm) keeperHas(k protocol.PeerID, order protocol.Hash) {
	if had := s.owed[order]; had != nil && s.isKeeper(k) {
		had[k] = true
		s.settleOwed(s.keepers())
	}
}

// orderFrom notes that a peer has an order and, where that one may owe it to this keeper,
// acknowledges it: the end of a job once nothing runs here.
func (s *swarm) orderFrom(p protocol.PeerID, rec *protocol.Record) {
	b, ok := rec.Body.(*protocol.Control)
	if !ok {
		return
	}
	s.keeperHas(p, rec.Hash)
	if s.keep == nil || s.isKeeper(p) {
		return
	}
	if s.acked || !ends(b.Verb) {
		s.m.send(p, &protocol.Acknowledge{Job: s.id, Order: rec.Hash})
	} else if !slices.Contains(s.owing, p) && len(s.owing) < maxOwing {
		s.owing = append(s.owing, p)
	}
}

// answerLate acknowledges the orders in news of a job that was let go of.
func (m *Machine) answerLate(to protocol.PeerID, n *protocol.News) {
	if _, over := m.finals[n.Job]; !over {
		return
	}
	for i := range n.Records {
		if _, ok := n.Records[i].Body.(*protocol.Control); ok {
			m.send(to, &protocol.Acknowledge{Job: n.Job, Order: n.Records[i].Hash})
		}
	}
}

func ends(v protocol.Verb) bool { return v == protocol.VerbCancel || v == protocol.VerbRemove }
