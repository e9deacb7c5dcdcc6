package market

import (
	"cmp"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// standState is the bids that stand at this peer as a holder.
type standState struct {
	bids   []standing
	gather time.Duration // bids are collected until then
	given  map[protocol.PeerID]given
}

type standing struct {
	from protocol.PeerID
	at   time.Duration
	*protocol.Bid
}

// given is the last grant to a bidder: the same bid gets the same answer.
type given struct {
	bid  protocol.Sequence
	recs []protocol.Record
	left uint64
}

// task is how long a task takes at the bidder; 0: it does not know.
func (b *standing) task() time.Duration {
	if b.Rate == 0 {
		return 0
	}
	return time.Duration(uint64(min(max(b.Slots, 1), MaxSlots)) * 1000 * uint64(time.Second) / uint64(b.Rate))
}

func (t *standState) clear() { *t = standState{} }

func (t *standState) drop(p protocol.PeerID) {
	t.bids = slices.DeleteFunc(t.bids, func(b standing) bool { return b.from == p })
	delete(t.given, p)
}

// bidOf takes a bid. It stands until there is something to give, or its time is over.
func (s *swarm) bidOf(from protocol.PeerID, b *protocol.Bid) {
	t := &s.stand
	if g, ok := t.given[from]; ok && g.bid == b.ID {
		s.m.send(from, &protocol.Grant{Job: s.id, Bid: b.ID, Segments: g.recs, Left: g.left})
		return
	}
	sh := s.share(b.Stage)
	if !s.acting() || sh == nil || sh.heldOpen() == 0 || len(t.bids) >= MaxStanding {
		s.refuse(from, b.ID)
		return
	}
	now := s.m.now.Mono
	if i := slices.IndexFunc(t.bids, func(o standing) bool { return o.from == from }); i >= 0 {
		if t.bids[i].ID.Less(b.ID) {
			t.bids[i] = standing{from, now, b}
		}
		return
	}
	if len(t.bids) == 0 {
		t.gather = now + s.m.cfg.Gather
	}
	t.bids = append(t.bids, standing{from, now, b})
	s.wakeAt(now)
}

// standTick serves the bids that stand, and refuses those whose time is over.
func (s *swarm) standTick() {
	t, now := &s.stand, s.m.now.Mono
	if len(t.bids) == 0 {
		return
	}
	if s.acting() && now >= t.gather {
		for _, sh := range s.shares {
			if sh != nil && len(t.bids) > 0 {
				s.serve(sh)
			}
		}
	} else {
		s.wakeAt(t.gather)
	}
	for _, b := range slices.Clone(t.bids) {
		if now >= b.at+s.m.cfg.BidTime {
			t.bids = slices.DeleteFunc(t.bids, func(o standing) bool { return o.from == b.from })
			s.refuse(b.from, b.ID)
		} else {
			s.wakeAt(b.at + s.m.cfg.BidTime)
		}
	}
}

// serve divides what is left of a stage among the standing bids and this peer, in
// proportion to their rates, or to their slots while a rate is not known.
func (s *swarm) serve(sh *share) {
	backlog := sh.backlog()
	if backlog == 0 {
		s.lend(sh)
	}
	if backlog == 0 || sh.st.crowded() {
		return
	}
	mine := uint64(sh.pace().rate(s.m.cfg.Slots))
	// Who would take longer for one task than this peer for all of them has to wait: so the
	// last ones do not end up where they would end last.
	end := never
	if mine > 0 && sh.able() {
		end = drain(backlog, protocol.Rate(mine)) + time.Duration(sh.tail())*time.Millisecond
	}
	bids := slices.DeleteFunc(slices.Clone(s.stand.bids), func(b standing) bool {
		return b.Memory < sh.stage().Limits.Memory || b.Slots == 0 || b.task() > end
	})
	known := mine > 0
	for _, b := range bids {
		known = known && b.Rate > 0 && b.Stage == sh.st.ref
	}
	weight := func(b standing) uint64 {
		if known {
			return min(uint64(b.Rate), 1<<30)
		}
		return uint64(min(b.Slots, MaxSlots))
	}
	if !known {
		mine = uint64(s.m.cfg.Slots)
	}
	if !sh.able() {
		mine = 0
	}
	total := mine
	for _, b := range bids {
		total += weight(b)
	}
	slices.SortStableFunc(bids, func(a, b standing) int { return cmp.Compare(weight(b), weight(a)) })
	usual := sh.usual()
	left := backlog
	if free := s.m.cfg.Slots - len(s.m.runs); free > 0 && sh.able() {
		left -= min(left, uint64(free)) // about to start here
	}
	for _, b := range bids {
		if left == 0 {
			return
		}
		n := min(left, max(1, backlog*weight(b)/total), sh.most(&b, backlog, usual))
		ranges := sh.take(n, b.from, s.near(b))
		if len(ranges) == 0 {
			continue
		}
		left -= min(left, n)
		s.hand(sh, b, ranges)
	}
}

// openTasks is about how many tasks of a stage are in the hands of members at a time: those
// of 16 blocks. As grants come from the far end, a stage of any size is so worked through
// about block by block, and the results that are not sealed stay few.
const openTasks = 16 * protocol.BlockSize

// minPart is of how many tasks a grant is in a large swarm, at least: it costs some seven
// messages, of which a task is to bear less than one.
const minPart = 8

// most bounds a grant by the bidder's part of openTasks and, of a holder that has more than
// that for every member, by its part of what is left: all come for more, and the last to
// come shall find some. Both are in proportion to its rate; before that is known they are an
// eighth, as what a slow peer has keeps its blocks open.
func (sh *share) most(b *standing, backlog, usual uint64) uint64 {
	n := sh.s.size()
	part := max(openTasks/n, minPart)
	if backlog > part {
		part = max(min(part, backlog/n), minPart)
	}
	if b.Rate == 0 || usual == 0 {
		return max(1, part/8)
	}
	return max(1, part*min(uint64(b.Rate), 1<<30)/usual)
}

// usual is the mean rate of the members for a stage, as far as they have said theirs; of a
// holder that is no keeper, its own.
func (sh *share) usual() uint64 {
	sum, n := uint64(sh.pace().rate(sh.s.m.cfg.Slots)), uint64(1)
	if sum == 0 {
		n = 0
	}
	for _, p := range sh.s.watch.list() {
		for _, k := range sh.s.watch.members[p].work {
			if k.Stage == sh.st.ref && k.Rate > 0 {
				sum, n = sum+min(uint64(k.Rate), 1<<30), n+1
			}
		}
	}
	return sum / max(n, 1)
}

// take picks n free tasks of ours, first those whose input is near the bidder, from the far
// end, as at most protocol.MaxGrant pieces; none at which the bidder has failed: another peer
// is to try.
func (sh *share) take(n uint64, bidder protocol.PeerID, near protocol.GroupSet) []holding {
	var list []holding
	for _, part := range sh.nearFirst(near) {
		if n == 0 {
			break
		}
		sh.st.eachDown(part, func(r protocol.Range, c *cell) bool {
			if !sh.mine(c) || c.failed.by(bidder, sh.s.ledger.generation()) > 0 {
				return true
			}
			for t := r.Hi; t > r.Lo && n > 0; t-- {
				i := t - 1
				if sh.engaged(i) {
					continue
				}
				last := len(list) - 1
				if last >= 0 && list[last].rng.Lo == t && list[last].life == c.life {
					list[last].rng.Lo = i
					list[last].epoch = max(list[last].epoch, c.epoch())
				} else if len(list) < protocol.MaxGrant {
					list = append(list, holding{protocol.Range{Lo: i, Hi: t}, c.life, c.epoch()})
				} else {
					n = 0
					break
				}
				n--
			}
			return n > 0
		})
	}
	return list
}

// hand signs the segments of a grant and sends them.
func (s *swarm) hand(sh *share, b standing, list []holding) {
	s.stand.bids = slices.DeleteFunc(s.stand.bids, func(o standing) bool { return o.from == b.from })
	var recs []protocol.Record
	for _, h := range list {
		rec := s.sign(&protocol.Segment{
			StageRef: sh.st.ref, Life: h.life, Range: h.rng, Epoch: h.epoch + 1, Holder: b.from,
			Cause: protocol.CauseGrant, Replaced: s.m.self,
		})
		if rec != nil {
			recs = append(recs, *rec)
		}
	}
	left := sh.backlog()
	if s.stand.given == nil || len(s.stand.given) >= MaxStanding {
		s.stand.given = map[protocol.PeerID]given{}
	}
	s.stand.given[b.from] = given{b.ID, recs, left}
	for i := range recs {
		s.tellStates(b.from, &recs[i])
	}
	s.m.flushNews()
	s.m.send(b.from, &protocol.Grant{Job: s.id, Bid: b.ID, Segments: recs, Left: left})
	s.link.next = min(s.link.next, s.m.now.Mono+s.m.cfg.Beat/10)
	s.wakeAt(s.link.next)
}

// refuse tells a bidder of other holders.
func (s *swarm) refuse(to protocol.PeerID, id protocol.Sequence) {
	r := &protocol.Refusal{Job: s.id, Bid: id}
	if s.keep != nil && s.acting() {
		r.Hints = slices.DeleteFunc(s.answer(to).Hints, func(h protocol.Hint) bool { return h.Holder == s.m.self })
	}
	s.m.send(to, r)
}

// refuseAll ends what stands: the job is over.
func (s *swarm) refuseAll() {
	for _, b := range s.stand.bids {
		s.m.send(b.from, &protocol.Refusal{Job: s.id, Bid: b.ID})
	}
	s.stand.clear()
}
