package market

import "github.com/compute-mesh/mesh/protocol"

// busyExchange is how many times Exchange a keeper whose ledger changes waits between two
// digests: what has just been told would show as a difference, and the exchange is for
// what got lost.
const busyExchange = 8

// exchangeTick sends a digest to one other keeper after another; a listening member
// asks all it knows.
func (s *swarm) exchangeTick() {
	now := s.m.now.Mono
	due := s.swap
	if s.listening == 0 && now < s.altered+s.m.cfg.Exchange/2 {
		due = s.swap + (busyExchange-1)*s.m.cfg.Exchange
	}
	if now < due {
		s.wakeAt(min(due, max(s.swap, s.altered+s.m.cfg.Exchange/2)))
		return
	}
	s.swap = now + s.m.jitter(s.m.cfg.Exchange)
	s.wakeAt(s.swap)
	others := s.others()
	if len(others) == 0 || s.keep == nil && s.listening == 0 {
		return
	}
	if s.listening > 0 {
		for _, k := range others {
			s.sendDigest(k, true)
		}
		return
	}
	s.swapTo++
	s.sendDigest(others[s.swapTo%len(others)], false)
}

// sendDigest tells a peer what is known here, after what it has not been told yet.
func (s *swarm) sendDigest(to protocol.PeerID, want bool) {
	s.m.urge(to)
	s.m.send(to, &protocol.Digest{Job: s.id, State: s.ledger.digest(), Want: want})
}

// agreeTick is the exchange of a job that has ended: it goes on with each keeper until that
// one's state is known to be the same. Of two the one with the lower ID asks, unless that has
// led to nothing.
func (s *swarm) agreeTick() {
	if s.keep == nil {
		return
	}
	mine, late := s.ledger.digest(), s.m.now.Mono >= s.ended+2*sweepTime
	for _, k := range s.others() {
		if s.agreed[k] != mine && (s.m.self < k || late) {
			s.sendDigest(k, true)
		}
	}
}

// digest compares another's state with ours. Keepers go down the tree from where it
// differs. A member has a part of the state only: one that listens is told all of it, and
// one that is asked tells what only it may know.
func (s *swarm) digest(from protocol.PeerID, d *protocol.Digest) {
	mine := s.ledger.digest()
	if mine == d.State {
		if s.isKeeper(from) {
			s.agreed[from] = mine
		}
		s.heardFrom(from)
		if d.Want {
			s.sendDigest(from, false)
		}
		return
	}
	switch {
	case s.keep == nil:
		if d.Want {
			s.resend(from)
		}
	case s.isKeeper(from):
		s.sendCompare(from, []protocol.Part{s.ledger.partJob()})
	default:
		s.m.tellAll(from, s)
		s.sendDigest(from, false)
	}
}

// sendCompare sends as many parts as one message may have: the rest differs still when
// digests are compared next.
func (s *swarm) sendCompare(to protocol.PeerID, parts []protocol.Part) {
	n := 0
	for i := range parts {
		if n += len(parts[i].Hashes); i == protocol.MaxParts || n > protocol.MaxCompareHashes {
			parts = parts[:i]
			break
		}
	}
	if len(parts) > 0 {
		s.m.urge(to)
		s.m.send(to, &protocol.Compare{Job: s.id, Parts: parts})
	}
}

// compare goes on with a comparison: it sends the records that the other lacks, and the
// parts to look at next.
func (s *swarm) compare(from protocol.PeerID, c *protocol.Compare) {
	if s.keep == nil {
		return
	}
	var next []protocol.Part
	for i := range c.Parts {
		if c.Parts[i].Give { // what it has for us has come before
			s.heardFrom(from)
		}
		news, parts := s.ledger.compare(&c.Parts[i])
		for _, rec := range news {
			s.m.tell(from, rec)
		}
		next = append(next, parts...)
	}
	s.sendCompare(from, next)
}

// newsOf takes records. What is not valid is dropped: the exchange brings it again if
// it only came too early. Where a segment loses to another record, its sender is told:
// a member learns so that its range is gone, a keeper that the range is done.
func (s *swarm) newsOf(from protocol.PeerID, n *protocol.News) {
	for i := range n.Records {
		rec := &n.Records[i]
		changed, err := s.learn(rec, from)
		if err == nil && !changed {
			s.correct(from, rec)
		}
		if err == nil {
			s.orderFrom(from, rec)
		}
	}
	s.heardFrom(from)
}

// correct tells a peer what stands against the segment it sent.
func (s *swarm) correct(p protocol.PeerID, rec *protocol.Record) {
	b, ok := rec.Body.(*protocol.Segment)
	if !ok {
		return
	}
	st := s.ledger.stage(b.StageRef)
	if st == nil {
		return
	}
	st.each(b.Range, func(_ protocol.Range, c *cell) bool {
		if c.held != nil && c.held.Hash != rec.Hash {
			s.m.tell(p, c.held)
		}
		if c.done != nil {
			s.m.tell(p, c.done)
		}
		return true
	})
}

// resend tells a keeper again what only this peer may have told it: its own visible
// records, and those by which it holds a range.
func (s *swarm) resend(keeper protocol.PeerID) {
	for _, rec := range s.ledger.records() {
		b, ok := rec.Body.(*protocol.Segment)
		if rec.Signer == s.m.self || ok && b.Holder == s.m.self {
			s.m.tell(keeper, &rec)
		}
	}
}
