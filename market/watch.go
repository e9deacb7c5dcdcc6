package market

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// watchState is what a keeper knows of the members: who lives and what they do.
type watchState struct {
	members  map[protocol.PeerID]*member
	order    []protocol.PeerID                 // of the members; nil: to be made
	holders  map[protocol.PeerID]time.Duration // since when this peer judges a holder
	suspects map[protocol.PeerID]*suspect
	excused  map[protocol.PeerID]bool // silent, but there when probed
	named    map[protocol.PeerID]int  // holders: to how many bidders since they last said what they have
	offers   []offered                // ranges without holder, the newest last
	next     time.Duration            // when the holders are looked at
	size     uint64                   // about how many members there are, this peer included
	deaths   deathState
}

type member struct {
	seen time.Duration // when it last said anything for this job
	seq  protocol.Sequence
	work []protocol.Work
	at   time.Duration // when it told work

	did   time.Duration             // when it last showed progress
	began map[taskKey]time.Duration // since when it tells of the tasks that it runs

	doubt time.Duration // since when it says it holds what is not known here; never: it does not
	lacks time.Duration // since when it does not say that it holds what it does, as known here

	trouble string // why it last gave a task back
	waits   bool   // it was told that there is nothing for it, and is to hear when there is
}

// suspect is a holder that may be gone: it is probed, then another keeper is asked.
type suspect struct {
	asked    protocol.PeerID // the keeper whose opinion is awaited
	deadline time.Duration
	probing  bool
}

func (w *watchState) init() {
	w.members, w.order = map[protocol.PeerID]*member{}, nil
	w.holders = map[protocol.PeerID]time.Duration{}
	w.suspects = map[protocol.PeerID]*suspect{}
	w.excused = map[protocol.PeerID]bool{}
	w.named = map[protocol.PeerID]int{}
	w.deaths = deathState{map[taskKey]int{}, map[taskKey]time.Duration{}}
}

// list is the members in order. It is not the caller's to change.
func (w *watchState) list() []protocol.PeerID {
	if w.order == nil {
		w.order = sortedKeys(w.members)
	}
	return w.order
}

// forget drops a member.
func (w *watchState) forget(p protocol.PeerID) {
	delete(w.members, p)
	w.order = nil
}

func (w *watchState) clear() {
	clear(w.suspects)
	clear(w.holders)
	w.next = 0
}

// memberSeen notes a sign of life of a member.
func (s *swarm) memberSeen(p protocol.PeerID) *member {
	w := s.watch.members[p]
	if w == nil {
		if len(s.watch.members) >= MaxMembers {
			s.forgetMembers()
		}
		w = &member{doubt: never, lacks: never}
		s.watch.members[p], s.watch.order = w, nil
	}
	w.seen = s.m.now.Mono
	delete(s.watch.suspects, p)
	delete(s.watch.excused, p)
	return w
}

// forgetMembers drops the members that were silent longest: a few at once, so that a table that
// stays full is not looked through for each newcomer.
func (s *swarm) forgetMembers() {
	old := sortedKeys(s.watch.members)
	slices.SortStableFunc(old, func(a, b protocol.PeerID) int {
		return cmp.Compare(s.watch.members[a].seen, s.watch.members[b].seen)
	})
	for _, p := range old[:MaxMembers/16] {
		s.watch.forget(p)
	}
}

// beat takes a member's beat and tells it where it is wrong about what it holds.
func (s *swarm) beat(from protocol.PeerID, b *protocol.Beat) {
	if s.keep == nil {
		return
	}
	w := s.memberSeen(from)
	if !w.seq.Less(b.Sequence) {
		return
	}
	w.seq, w.work, w.at = b.Sequence, b.Work, s.m.now.Mono
	w.waits = w.waits && !slices.ContainsFunc(b.Work, func(k protocol.Work) bool { return k.Backlog > 0 })
	s.ran(w)
	delete(s.watch.named, from)
	if w.trouble != b.Trouble {
		w.trouble = b.Trouble
		s.m.changed(s.id)
	}
	if !s.running() {
		s.brief(from)
		return
	}
	since := never
	for _, st := range s.ledger.stages {
		if st != nil {
			since = min(since, s.putRight(from, st, heldOf(b.Work, st.ref)))
		}
	}
	s.doubt(from, w, since)
	s.remindOf(from, w, b.Work)
}

// doubt has a member tell what it knows that has said since then, at the latest, that it holds
// what is not known here: once the records have had time to come by another keeper.
func (s *swarm) doubt(p protocol.PeerID, w *member, since time.Duration) {
	if w.doubt = min(w.doubt, since); since == never {
		w.doubt = never
	} else if now := s.m.now.Mono; now-w.doubt >= s.m.spread() {
		w.doubt = now
		s.sendDigest(p, true)
	}
}

// heldOf is what a member says it holds of a stage.
func heldOf(work []protocol.Work, ref protocol.StageRef) []protocol.Held {
	if i := slices.IndexFunc(work, func(k protocol.Work) bool { return k.Stage == ref }); i >= 0 {
		return work[i].Held
	}
	return nil
}

// putRight tells a member of what it thinks to hold and does not, and gives back since when
// it may hold some of it by a record that did not come here; never: it does not. That it has
// adopted a range would have been told before all else.
func (s *swarm) putRight(p protocol.PeerID, st *stage, held []protocol.Held) (since time.Duration) {
	since = never
	for _, h := range held {
		st.each(h.Range, func(_ protocol.Range, c *cell) bool {
			switch {
			case c.done != nil:
				s.m.tell(p, c.done)
			case c.epoch() < h.Epoch && st.holder(c) == "":
				since = s.m.now.Mono - s.m.spread()
			case c.epoch() < h.Epoch:
				since = min(since, s.m.now.Mono)
			case c.held != nil && (c.epoch() > h.Epoch || st.holder(c) != p):
				s.m.tell(p, c.held)
			}
			return true
		})
	}
	return since
}

// remindOf tells a member of what it holds and has not named for a while: a result, or that
// it has passed the range on, has had time to come here by another keeper.
func (s *swarm) remindOf(p protocol.PeerID, w *member, work []protocol.Work) {
	all := true
	for _, st := range s.ledger.stages {
		if st != nil {
			held := heldOf(work, st.ref)
			all = all && (len(held) >= protocol.MaxHeld || st.knows(p, held))
		}
	}
	switch now := s.m.now.Mono; {
	case all:
		w.lacks = never
	case w.lacks == never:
		w.lacks = now
	case now-w.lacks >= s.m.spread():
		w.lacks = now
		s.remind(p, work)
	}
}

// remind tells a member of what it holds and does not name.
func (s *swarm) remind(p protocol.PeerID, work []protocol.Work) {
	for _, st := range s.ledger.stages {
		if st == nil {
			continue
		}
		for _, rec := range st.unnamed(p, heldOf(work, st.ref)) {
			s.m.tell(p, rec)
		}
	}
}

// unnamed is the records by which p holds what is not in held, which it says it holds.
func (s *stage) unnamed(p protocol.PeerID, held []protocol.Held) (list []*protocol.Record) {
	if len(held) >= protocol.MaxHeld {
		return nil // and perhaps more
	}
	s.each(s.all(), func(r protocol.Range, c *cell) bool {
		if c.done != nil || c.held == nil || s.holder(c) != p {
			return true
		}
		if !slices.ContainsFunc(held, func(h protocol.Held) bool { return h.Range.Lo <= r.Lo && r.Hi <= h.Range.Hi && h.Epoch >= c.epoch() }) {
			list = append(list, c.held)
		}
		return true
	})
	return list
}

// knows tells whether held, which p says it holds, is all that it holds.
func (s *stage) knows(p protocol.PeerID, held []protocol.Held) bool {
	n := uint64(0)
	for _, h := range held {
		s.each(h.Range, func(r protocol.Range, c *cell) bool {
			if s.holder(c) == p && h.Epoch >= c.epoch() {
				n += r.Len()
			}
			return true
		})
	}
	return n >= s.tally.held[p]
}

// linkState is when a member beats next, and what troubles it.
type linkState struct {
	next    time.Duration
	trouble string        // why this peer last gave a task back; empty once one has run since
	told    string        // what the keepers were told of it
	row     int           // tasks given back since one ran
	unfit   time.Duration // takes no tasks before then: it gave too many back
}

// beatTick tells two keepers that this peer lives and what it runs and holds.
func (s *swarm) beatTick() {
	if s.m.now.Mono < s.link.next {
		s.wakeAt(s.link.next)
		return
	}
	work := s.work()
	if len(work) == 0 && s.link.told == s.link.trouble {
		return
	}
	s.link.next = s.m.now.Mono + s.m.cfg.Beat
	s.wakeAt(s.link.next)
	for _, k := range s.links() {
		s.m.send(k, &protocol.Beat{Sequence: s.m.sequence(), Job: s.id, Work: work, Trouble: s.link.trouble})
	}
	s.link.told = s.link.trouble
}

// work is what this peer runs and holds, by stage.
func (s *swarm) work() []protocol.Work {
	var list []protocol.Work
	for _, sh := range s.shares {
		if sh == nil || sh.st.over() || sh.heldOpen() == 0 && len(sh.running) == 0 && len(sh.finished) == 0 && len(sh.pages) == 0 {
			continue
		}
		w := protocol.Work{Stage: sh.st.ref, Backlog: sh.backlog(), Rate: sh.pace().rate(s.m.cfg.Slots), Tail: sh.tail()}
		running := sortedKeys(sh.running)
		w.Running = running[:min(len(running), protocol.MaxRunning)]
		if sh.heldOpen() == 0 {
			list = append(list, w)
			continue
		}
		sh.st.each(sh.st.all(), func(r protocol.Range, c *cell) bool {
			if !sh.mine(c) {
				return true
			}
			last := len(w.Held) - 1
			if last >= 0 && w.Held[last].Range.Hi == r.Lo && w.Held[last].Epoch == c.epoch() && w.Held[last].Life == c.life {
				w.Held[last].Range.Hi = r.Hi
			} else {
				w.Held = append(w.Held, protocol.Held{Life: c.life, Range: r, Epoch: c.epoch()})
			}
			return len(w.Held) < protocol.MaxHeld
		})
		list = append(list, w)
	}
	return list
}

// watchTick has a keeper look after the holders that it judges, and after the ranges
// that have none: twice a beat, and when a connection is lost.
func (s *swarm) watchTick() {
	if s.keep == nil || !s.acting() {
		return
	}
	now := s.m.now.Mono
	if now >= s.watch.next {
		s.watch.next = now + s.m.cfg.Beat/2
		s.count()
		delete(s.watch.named, s.m.self)
		s.watchHolders()
		s.answerAgain()
	}
	s.wakeAt(s.watch.next)
	for _, p := range sortedKeys(s.watch.suspects) {
		if q := s.watch.suspects[p]; q.deadline <= now {
			s.condemn(p)
		} else {
			s.wakeAt(q.deadline)
		}
	}
}

// count estimates how many members there are: each beats to two keepers.
func (s *swarm) count() {
	n := 0
	for _, p := range s.watch.list() {
		if w := s.watch.members[p]; w.work != nil && s.m.alive(p) {
			n++
		}
	}
	s.watch.size = uint64(n*max(len(s.live()), 2)/2 + 1)
}

func (s *swarm) watchHolders() {
	now := s.m.now.Mono
	holders := map[protocol.PeerID]uint64{}
	for _, sh := range s.shares {
		if sh == nil || sh.st.over() {
			continue
		}
		held := s.ledger.holders(sh.st, func(r protocol.Range, c *cell) {
			s.offer(protocol.Open{Stage: sh.st.ref, Life: c.life, Range: r, Epoch: c.epoch()}, false)
		})
		maps.Copy(holders, held)
	}
	maps.DeleteFunc(s.watch.named, func(h protocol.PeerID, _ int) bool { return holders[h] == 0 })
	delete(holders, s.m.self)
	for _, h := range sortedKeys(s.watch.holders) {
		if holders[h] == 0 {
			delete(s.watch.holders, h)
		}
	}
	limit := time.Duration(s.m.cfg.Missed)*s.m.cfg.Beat + s.m.cfg.Beat/4
	for _, h := range sortedKeys(holders) {
		if !s.judging(h) {
			delete(s.watch.holders, h)
			continue
		}
		if _, ok := s.watch.holders[h]; !ok {
			s.watch.holders[h] = now
		}
		last := s.watch.holders[h]
		if w := s.watch.members[h]; w != nil {
			last = max(last, w.seen)
		}
		if due := last + limit; now >= due || !s.m.alive(h) {
			s.suspect(h)
		} else if s.wakeAt(due); s.idle(h) {
			delete(s.watch.holders, h) // from now on, if it takes the range again
			s.releaseFor(h)
		}
	}
}

// suspect starts the inquiry about a holder: first a probe.
func (s *swarm) suspect(p protocol.PeerID) {
	if s.keep == nil || !s.acting() || s.watch.suspects[p] != nil || p == s.m.self {
		return
	}
	if _, judged := s.watch.holders[p]; !judged {
		return
	}
	s.watch.suspects[p] = &suspect{probing: true, deadline: s.m.now.Mono + probeTime}
	if at, failed := s.m.gone[p]; failed && s.m.now.Mono-at < forgetDown && !s.m.up[p] {
		s.probed(p, false)
		return
	}
	s.m.out.Probe = append(s.m.out.Probe, p)
	s.wakeAt(s.m.now.Mono + probeTime)
}

// probeTime bounds a probe: one that takes longer has found nobody.
const probeTime = 3 * time.Second

// probed goes on with an inquiry. Who is there after all gets time to say what it does,
// and is told what it holds.
func (s *swarm) probed(p protocol.PeerID, alive bool) {
	q := s.watch.suspects[p]
	if q == nil || !q.probing {
		return
	}
	q.probing = false
	s.wakeAt(s.m.now.Mono)
	if alive && s.watch.excused[p] {
		s.condemn(p) // it is there and knows what it holds, and still says nothing of it
		return
	}
	if alive {
		delete(s.watch.suspects, p)
		s.watch.excused[p] = true
		s.watch.holders[p] = s.m.now.Mono
		s.brief(p)
		s.remind(p, nil)
		return
	}
	for _, k := range s.judges(p) {
		if k != s.m.self {
			q.asked, q.deadline = k, s.m.now.Mono+s.m.cfg.Opinion
			s.m.send(k, &protocol.Suspect{Job: s.id, Member: p})
			return
		}
	}
	s.condemn(p)
}

// suspectOf answers another keeper that doubts a member.
func (s *swarm) suspectOf(from protocol.PeerID, msg *protocol.Suspect) {
	if s.keep == nil || !s.isKeeper(from) {
		return
	}
	w := s.watch.members[msg.Member]
	fresh := w != nil && s.m.now.Mono-w.seen < 2*s.m.cfg.Beat
	s.m.send(from, &protocol.Opinion{Job: s.id, Member: msg.Member, Alive: fresh && s.m.up[msg.Member]})
	if !s.m.up[msg.Member] {
		s.suspect(msg.Member)
	}
}

// opinion ends an inquiry.
func (s *swarm) opinion(from protocol.PeerID, o *protocol.Opinion) {
	q := s.watch.suspects[o.Member]
	if q == nil || q.asked != from {
		return
	}
	if o.Alive {
		delete(s.watch.suspects, o.Member)
		s.watch.holders[o.Member] = s.m.now.Mono
		return
	}
	s.condemn(o.Member)
}

// condemn releases everything that a peer holds.
func (s *swarm) condemn(p protocol.PeerID) {
	delete(s.watch.suspects, p)
	delete(s.watch.excused, p)
	delete(s.watch.holders, p)
	w := s.watch.members[p]
	s.watch.forget(p)
	if s.keep == nil || !s.acting() {
		return
	}
	s.wentWith(w, p)
	s.releaseFor(p)
}

// releaseFor takes from a peer everything that it holds.
func (s *swarm) releaseFor(p protocol.PeerID) {
	for _, st := range s.ledger.stages {
		if st == nil || st.over() {
			continue
		}
		for _, h := range st.holdings(p) {
			if h.epoch >= protocol.MaxEpoch { // a claim that nothing can follow but a new life
				s.sign(&protocol.Reopen{StageRef: st.ref, Range: h.rng, Life: h.life + 1, Cause: protocol.ReopenEpoch, Keep: s.keep.Hash})
				continue
			}
			s.sign(&protocol.Segment{
				StageRef: st.ref, Life: h.life, Range: h.rng, Epoch: h.epoch + 1,
				Cause: protocol.CauseReleaseFor, Replaced: p, Keep: s.keep.Hash,
			})
		}
	}
}
