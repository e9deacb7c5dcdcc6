package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// Copies of running tasks, for the tail of a stage: in the memory of the two peers
// alone, no record knows of them, and the first result wins.

// copies are those that this peer gave away, and whose those are that it runs.
type copies struct {
	lent     map[protocol.TaskIndex][]loan
	borrowed map[protocol.TaskIndex]protocol.PeerID
}

// loan is a copy that a bidder has, since when, and how long a task takes there.
type loan struct {
	to   protocol.PeerID
	bid  protocol.Sequence
	at   time.Duration
	task time.Duration
}

// maxCopies bounds the copies of a task: each goes where it would end before all others, and
// three times in a row that does not come true for a few tasks in a thousand.
const maxCopies = 3

// lost forgets the copies that a peer had: others may have them.
func (c *copies) lost(p protocol.PeerID) {
	for _, t := range sortedKeys(c.lent) {
		c.take(t, func(l loan) bool { return l.to == p })
	}
}

// take forgets those copies of a task for which is says yes.
func (c *copies) take(t protocol.TaskIndex, is func(loan) bool) {
	if c.lent[t] = slices.DeleteFunc(c.lent[t], is); len(c.lent[t]) == 0 {
		delete(c.lent, t)
	}
}

// remaining is how long a run is still expected to take that has taken so long, where tasks
// take mean: what is left of the mean or, once that has passed, half of what it took so far.
func remaining(mean, took time.Duration) time.Duration { return max(mean-took, took/2) }

// expect is when a run of this peer is expected to end, from now.
func (sh *share) expect(r *run) time.Duration {
	return remaining(sh.pace().task(), sh.s.m.now.Mono-r.since)
}

// left is when the result of a task that runs here is expected, from now: from this peer or
// from who has a copy.
func (sh *share) left(r *run) time.Duration {
	left := sh.expect(r)
	for _, l := range sh.copies.lent[r.task] {
		left = min(left, remaining(l.task, sh.s.m.now.Mono-l.at))
	}
	return left
}

// lendable tells whether another copy of a task that runs here may be given away.
func (sh *share) lendable(r *run) bool {
	return !r.stopped && r != sh.s.m.alone && sh.copies.borrowed[r.task] == "" && len(sh.copies.lent[r.task]) < maxCopies
}

// tail is when the last of the running tasks is expected to be done, in ms from now.
func (sh *share) tail() uint32 {
	var last time.Duration
	for _, r := range sh.running {
		if sh.lendable(r) {
			last = max(last, sh.left(r))
		}
	}
	return uint32(min(last/time.Millisecond, 1<<31))
}

// lend gives the standing bidders copies of the running tasks that are expected to be done
// last, where the bidder would end them sooner than all who have them.
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
			has := slices.ContainsFunc(sh.copies.lent[t], func(l loan) bool { return l.to == b.from })
			if !has && sh.lendable(r) && (last == nil || sh.left(r) > sh.left(last)) {
				last = r
			}
		}
		if last == nil {
			continue
		}
		if left := sh.left(last); left <= there {
			s.wakeAt(now + max(there-left, s.m.cfg.Lead)) // by then it may be later than thought
			continue
		}
		sh.copies.lent[last.task] = append(sh.copies.lent[last.task], loan{b.from, b.ID, now, b.task()})
		s.stand.bids = slices.DeleteFunc(s.stand.bids, func(o standing) bool { return o.from == b.from })
		s.m.send(b.from, &protocol.Backup{Job: s.id, Bid: b.ID, Stage: sh.st.ref, Life: last.life, Task: last.task})
	}
}

// declined takes back a copy that its bidder does not run.
func (s *swarm) declined(from protocol.PeerID, bid protocol.Sequence) {
	for _, sh := range s.shares {
		if sh == nil {
			continue
		}
		for _, t := range sortedKeys(sh.copies.lent) {
			sh.copies.take(t, func(l loan) bool { return l.to == from && l.bid == bid })
		}
	}
	s.wakeAt(s.m.now.Mono)
}

// backup takes a copy of another's task, if there is a slot for it; else it says so, that
// another gets it.
func (s *swarm) backup(from protocol.PeerID, b *protocol.Backup) {
	n := len(s.seek.bids)
	s.seek.bids = slices.DeleteFunc(s.seek.bids, func(o sentBid) bool { return o.holder == from && o.id == b.Bid })
	if len(s.seek.bids) == n {
		return
	}
	sh := s.share(b.Stage)
	if sh == nil || !s.running() || uint64(b.Task) >= sh.st.n || !sh.takes(b) {
		s.m.send(from, &protocol.Refusal{Job: s.id, Bid: b.Bid})
		return
	}
	sh.copies.borrowed[b.Task] = from
	cursor := sh.cursor
	sh.start(b.Task, sh.st.at(b.Task))
	sh.cursor = cursor
}

// takes tells whether this peer can run a copy now.
func (sh *share) takes(b *protocol.Backup) bool {
	m, c := sh.s.m, sh.st.at(b.Task)
	return sh.able() && !sh.s.paused() && c.done == nil && c.life == b.Life && !sh.engaged(b.Task) &&
		len(m.runs) < m.cfg.Slots && m.alone == nil && !deadly(c)
}

// settleCopies tells the other sides of a copy that a result of this peer stands: they may
// stop.
func (sh *share) settleCopies(rec *protocol.Record, r protocol.Range) {
	sh.settleLent(rec, r)
	for _, t := range sortedKeys(sh.copies.borrowed) {
		if r.Contains(t) {
			sh.s.m.tell(sh.copies.borrowed[t], rec)
			delete(sh.copies.borrowed, t)
		}
	}
}

// settleLent tells those that this peer gave a copy to that a result stands.
func (sh *share) settleLent(rec *protocol.Record, r protocol.Range) {
	for _, t := range sortedKeys(sh.copies.lent) {
		if !r.Contains(t) {
			continue
		}
		for _, l := range sh.copies.lent[t] {
			if l.to != rec.Signer {
				sh.s.m.tell(l.to, rec)
			}
		}
		delete(sh.copies.lent, t)
	}
}
