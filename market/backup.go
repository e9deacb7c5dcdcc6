package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// Copies of running tasks, for the tail of a stage: in the memory of the two peers
// alone, no record knows of them, and the first result wins.

// lent is the copies that this peer gave away, and borrowed those that it runs.
type copies struct {
	lent     map[protocol.TaskIndex]protocol.PeerID
	loans    map[protocol.TaskIndex]loan // of what is lent
	borrowed map[protocol.TaskIndex]protocol.PeerID
}

// loan is what a copy was given for, and when it should be done by far.
type loan struct {
	bid   protocol.Sequence
	until time.Duration
}

// unlend forgets a copy: the task may have another.
func (c *copies) unlend(t protocol.TaskIndex) {
	delete(c.lent, t)
	delete(c.loans, t)
}

// expect is how long a run is still expected to take: what is left of the mean or, once
// that has passed, half of what it took so far.
func (sh *share) expect(r *run) time.Duration {
	took := sh.s.m.now.Mono - r.since
	return max(sh.pace().task()-took, took/2)
}

// tail is when the last of the running tasks is expected to end, in ms from now.
func (sh *share) tail() uint32 {
	var last time.Duration
	for _, r := range sh.running {
		if sh.copies.borrowed[r.task] == "" && sh.copies.lent[r.task] == "" {
			last = max(last, sh.expect(r))
		}
	}
	return uint32(min(last/time.Millisecond, 1<<31))
}

// lend gives the standing bidders copies of the running tasks that are expected to end
// last, where the bidder would end them sooner. A task has one copy at a time.
func (s *swarm) lend(sh *share) {
	now := s.m.now.Mono
	for _, b := range slices.Clone(s.stand.bids) {
		if b.Stage != sh.st.ref || b.Rate == 0 || b.Memory < sh.stage().Limits.Memory {
			continue
		}
		there := b.task() + s.m.cfg.Lead
		var last *run
		for _, t := range sortedKeys(sh.running) {
			r := sh.running[t]
			if l, ok := sh.copies.loans[t]; ok && now >= l.until {
				sh.copies.unlend(t)
			}
			if sh.copies.lent[t] == "" && sh.copies.borrowed[t] == "" && !r.stopped && r != s.m.alone && (last == nil || sh.expect(r) > sh.expect(last)) {
				last = r
			}
		}
		if last == nil {
			return
		}
		if left := sh.expect(last); left <= there {
			s.wakeAt(now + max(there-left, s.m.cfg.Lead)) // by then it may be later than thought
			continue
		}
		sh.copies.lent[last.task] = b.from
		sh.copies.loans[last.task] = loan{b.ID, now + 2*there + s.m.cfg.BidTime}
		s.stand.bids = slices.DeleteFunc(s.stand.bids, func(o standing) bool { return o.from == b.from })
		s.m.send(b.from, &protocol.Backup{Job: s.id, Bid: b.ID, Stage: sh.st.ref, Life: last.life, Task: last.task})
	}
}

// declined takes back a copy that its bidder has no slot for.
func (s *swarm) declined(from protocol.PeerID, bid protocol.Sequence) {
	for _, sh := range s.shares {
		if sh == nil {
			continue
		}
		for _, t := range sortedKeys(sh.copies.lent) {
			if sh.copies.lent[t] == from && sh.copies.loans[t].bid == bid {
				sh.copies.unlend(t)
				s.wakeAt(s.m.now.Mono)
			}
		}
	}
}

// backup takes a copy of another's task, if there is a slot for it; else says so at once,
// or nobody would get it for as long as it should take here.
func (s *swarm) backup(from protocol.PeerID, b *protocol.Backup) {
	n := len(s.seek.bids)
	s.seek.bids = slices.DeleteFunc(s.seek.bids, func(o sentBid) bool { return o.holder == from && o.id == b.Bid })
	sh := s.share(b.Stage)
	if len(s.seek.bids) == n || sh == nil || !sh.able() || !s.running() || s.paused() || uint64(b.Task) >= sh.st.n {
		return
	}
	c := sh.st.at(b.Task)
	if c.done != nil || c.life != b.Life || sh.engaged(b.Task) || len(s.m.runs) >= s.m.cfg.Slots || s.m.alone != nil || deadly(c) {
		return
	}
	sh.copies.borrowed[b.Task] = from
	cursor := sh.cursor
	sh.start(b.Task, c)
	sh.cursor = cursor
}

// settleCopies tells the other side of a copy that a result stands: it may stop.
func (sh *share) settleCopies(rec *protocol.Record, r protocol.Range) {
	for _, side := range []map[protocol.TaskIndex]protocol.PeerID{sh.copies.lent, sh.copies.borrowed} {
		for _, t := range sortedKeys(side) {
			if r.Contains(t) {
				sh.s.m.tell(side[t], rec)
				delete(side, t)
				delete(sh.copies.loans, t)
			}
		}
	}
}
