package market

import (
	"bytes"
	"slices"
	"sort"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// cell is the state of a task: its life and, within it, done, which absorbs, or
// (held, failed, checkpoint). Cells are values; what they point to is immutable.
type cell struct {
	life   protocol.Life
	reopen *protocol.Record // that began the life; nil in life 0, or while it is not known
	done   *protocol.Record // a Done, or a Seal of level 0
	held   *protocol.Record // a Segment; nil: the submitter's peer in life 0, nobody later
	failed *failures
	check  *protocol.Record // a Checkpoint
}

// span is the cell of the tasks from lo to the next span's lo.
type span struct {
	lo protocol.TaskIndex
	cell
}

// stage is the visible state of one stage under one input key: a map from task to
// cell, kept as spans of equal cells, and the seals above level 0.
//
// Invariants: spans[0].lo == 0 unless n == 0; lo ascends; neighbours differ.
type stage struct {
	ref       protocol.StageRef
	n         uint64
	submitter protocol.PeerID
	spans     []span
	tally     tally
	seals     map[sealName]*protocol.Record // of levels above 0
	nodes     map[sealName]protocol.Hash    // of the digest's tree, as far as they are known
	top       *protocol.Record              // a register of its own: Reopen never undoes it
	again     bool                          // tasks run again though there is a top seal
}

type sealName struct {
	level  uint8
	number uint64
}

func newStage(ref protocol.StageRef, n uint64, submitter protocol.PeerID) *stage {
	s := &stage{ref: ref, n: n, submitter: submitter, seals: map[sealName]*protocol.Record{}}
	s.tally.held = map[protocol.PeerID]uint64{}
	if n > 0 {
		s.spans = []span{{}}
		s.counts(&s.spans[0].cell, n)
	}
	return s
}

// all is the range of every task.
func (s *stage) all() protocol.Range { return protocol.Range{Hi: protocol.TaskIndex(s.n)} }

// holder is who should run the tasks of c; empty: nobody.
func (s *stage) holder(c *cell) protocol.PeerID {
	switch {
	case c.done != nil:
		return ""
	case c.held != nil:
		return c.held.Body.(*protocol.Segment).Holder
	case c.life == 0:
		return s.submitter
	}
	return ""
}

func (c *cell) epoch() protocol.Epoch {
	if c.held == nil {
		return 0
	}
	return c.held.Body.(*protocol.Segment).Epoch
}

// find is the number of the span that has t.
func (s *stage) find(t protocol.TaskIndex) int {
	return sort.Search(len(s.spans), func(i int) bool { return s.spans[i].lo > t }) - 1
}

// hi is where span i ends.
func (s *stage) hi(i int) protocol.TaskIndex {
	if i+1 < len(s.spans) {
		return s.spans[i+1].lo
	}
	return protocol.TaskIndex(s.n)
}

// at is the cell of t, which must be in the stage.
func (s *stage) at(t protocol.TaskIndex) *cell { return &s.spans[s.find(t)].cell }

// each calls f for the pieces of r in ascending order until f says stop.
// f must not change the stage.
func (s *stage) each(r protocol.Range, f func(protocol.Range, *cell) bool) {
	if r.Lo >= r.Hi || len(s.spans) == 0 {
		return
	}
	for i := s.find(r.Lo); i < len(s.spans) && s.spans[i].lo < r.Hi; i++ {
		if !f(protocol.Range{Lo: s.spans[i].lo, Hi: s.hi(i)}.Intersect(r), &s.spans[i].cell) {
			return
		}
	}
}

// eachDown is each in descending order.
func (s *stage) eachDown(r protocol.Range, f func(protocol.Range, *cell) bool) {
	if r.Lo >= r.Hi || len(s.spans) == 0 {
		return
	}
	for i := s.find(r.Hi - 1); i >= 0 && s.hi(i) > r.Lo; i-- {
		if !f(protocol.Range{Lo: s.spans[i].lo, Hi: s.hi(i)}.Intersect(r), &s.spans[i].cell) {
			return
		}
	}
}

// apply joins rec, which must be valid for this stage, into the tasks of r.
// It tells whether that changed anything.
func (s *stage) apply(r protocol.Range, rec *protocol.Record) bool {
	r = r.Intersect(s.all())
	if r.Lo >= r.Hi {
		return false
	}
	var next []span
	add := func(lo protocol.TaskIndex, c cell) {
		if n := len(next); n > 0 && same(&next[n-1].cell, &c) {
			return
		}
		next = append(next, span{lo, c})
	}
	changed := false
	i := s.find(r.Lo)
	j := i
	for ; j < len(s.spans) && s.spans[j].lo < r.Hi; j++ {
		old, lo, hi := s.spans[j].cell, s.spans[j].lo, s.hi(j)
		in := protocol.Range{Lo: lo, Hi: hi}.Intersect(r)
		if lo < in.Lo {
			add(lo, old)
		}
		for t := in.Lo; t < in.Hi; t++ {
			c := s.join(old, t, rec)
			changed = changed || !same(&c, &old)
			add(t, c)
			if !contested(&old, rec) {
				break
			}
		}
		if in.Hi < hi {
			add(in.Hi, old)
		}
	}
	if !changed {
		return false
	}
	s.recount(i, j, next)
	if i > 0 && same(&s.spans[i-1].cell, &next[0].cell) {
		next = next[1:]
	}
	if len(next) > 0 && j < len(s.spans) && same(&next[len(next)-1].cell, &s.spans[j].cell) {
		j++
	} else if len(next) == 0 && j < len(s.spans) && same(&s.spans[i-1].cell, &s.spans[j].cell) {
		j++
	}
	s.spans = slices.Replace(s.spans, i, j, next...)
	s.forgetNodes(r)
	return true
}

// contested tells whether the winner between c and rec can differ from task to task.
func contested(c *cell, rec *protocol.Record) bool {
	d, ok := rec.Body.(*protocol.Done)
	if !ok || c.done == nil || c.life != d.Life {
		return false
	}
	_, ok = c.done.Body.(*protocol.Done)
	return ok && c.done.Hash != rec.Hash
}

// join is the join of the cell of task t with a record about it.
func (s *stage) join(c cell, t protocol.TaskIndex, rec *protocol.Record) cell {
	if life := lifeOf(rec.Body); life < c.life || life > c.life && !startsLife(rec.Body) {
		return c
	} else if life > c.life {
		c = cell{life: life}
	}
	switch rec.Body.(type) {
	case *protocol.Reopen:
		if c.reopen == nil || before(rec, c.reopen) {
			c.reopen = rec
		}
	case *protocol.Seal:
		if c.done == nil || s.sealWins(rec, c.done) {
			return cell{life: c.life, reopen: c.reopen, done: rec}
		}
	case *protocol.Done:
		if c.done == nil || s.doneWins(rec, c.done, t) {
			return cell{life: c.life, reopen: c.reopen, done: rec}
		}
	}
	if c.done != nil {
		return c
	}
	switch b := rec.Body.(type) {
	case *protocol.Segment:
		if b.Epoch > c.epoch() || c.held != nil && b.Epoch == c.epoch() && s.heldWins(rec, c.held) {
			c.held = rec
		}
	case *protocol.Failed:
		c.failed = c.failed.join(rec)
	case *protocol.Checkpoint:
		if c.check == nil || checkWins(rec, c.check) {
			c.check = rec
		}
	}
	return c
}

// startsLife tells whether a record is a keeper's word that a life has begun. Anybody
// may sign the others: they count in lives that have.
func startsLife(b protocol.Body) bool {
	switch b.(type) {
	case *protocol.Reopen, *protocol.Seal:
		return true
	}
	return false
}

// begun tells whether a record's life has begun in all of r: it names the life of all
// its tasks, and counts for all of them or not yet.
func (s *stage) begun(r protocol.Range, b protocol.Body) bool {
	life := lifeOf(b)
	if life == 0 || startsLife(b) {
		return true
	}
	ok := true
	s.each(r, func(_ protocol.Range, c *cell) bool {
		ok = c.life >= life
		return ok
	})
	return ok
}

func lifeOf(b protocol.Body) protocol.Life {
	switch b := b.(type) {
	case *protocol.Segment:
		return b.Life
	case *protocol.Done:
		return b.Life
	case *protocol.Failed:
		return b.Life
	case *protocol.Checkpoint:
		return b.Life
	case *protocol.Seal:
		return b.Life
	case *protocol.Reopen:
		return b.Life
	}
	return 0
}

// before is the last tie-break: the order of the records' hashes.
func before(a, b *protocol.Record) bool { return bytes.Compare(a.Hash[:], b.Hash[:]) < 0 }

// lower compares by a hash that neither side can grind, then by the records' own.
func lower(a, b protocol.Hash, ra, rb *protocol.Record) bool {
	if c := bytes.Compare(a[:], b[:]); c != 0 {
		return c < 0
	}
	return before(ra, rb)
}

func (s *stage) doneWins(rec, old *protocol.Record, t protocol.TaskIndex) bool {
	if _, sealed := old.Body.(*protocol.Seal); sealed {
		return false
	}
	return lower(protocol.DoneOrder(s.ref.Job, s.ref.Stage, s.ref.Key, t, rec.Signer), protocol.DoneOrder(s.ref.Job, s.ref.Stage, s.ref.Key, t, old.Signer), rec, old)
}

// sealWins compares two seals of the same level and number; a Seal beats any Done.
func (s *stage) sealWins(rec, old *protocol.Record) bool {
	if _, ok := old.Body.(*protocol.Seal); !ok {
		return true
	}
	first := firstTask(rec.Body.(*protocol.Seal))
	return lower(protocol.SealOrder(s.ref.Job, s.ref.Stage, s.ref.Key, first, rec.Signer), protocol.SealOrder(s.ref.Job, s.ref.Stage, s.ref.Key, first, old.Signer), rec, old)
}

func (s *stage) heldWins(rec, old *protocol.Record) bool {
	a, b := rec.Body.(*protocol.Segment), old.Body.(*protocol.Segment)
	return lower(protocol.HeldOrder(s.ref.Job, s.ref.Stage, s.ref.Key, a.Epoch, a.Holder), protocol.HeldOrder(s.ref.Job, s.ref.Stage, s.ref.Key, b.Epoch, b.Holder), rec, old)
}

func checkWins(rec, old *protocol.Record) bool {
	a, b := rec.Body.(*protocol.Checkpoint), old.Body.(*protocol.Checkpoint)
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	if a.Sequence != b.Sequence {
		return a.Sequence > b.Sequence
	}
	return before(rec, old)
}

// firstTask is the first task that a seal covers.
func firstTask(b *protocol.Seal) protocol.TaskIndex {
	t := b.Number
	for range int(b.Level) + 1 {
		t *= protocol.BlockSize
	}
	return protocol.TaskIndex(t)
}

// seal joins a valid seal: into the tasks of its block, into the tree above, and into
// the stage's top register.
func (s *stage) seal(rec *protocol.Record) bool {
	b := rec.Body.(*protocol.Seal)
	changed := false
	if b.Level == 0 {
		changed = s.apply(protocol.Block(b.Number).Range(s.n), rec)
	} else {
		name := sealName{b.Level, b.Number}
		if old := s.seals[name]; old == nil || s.sealWins(rec, old) {
			s.seals[name] = rec
			changed = true
		}
	}
	if int(b.Level) == job.TopLevel(s.n) && (s.top == nil || s.sealWins(rec, s.top)) {
		s.top = rec
		changed = true
	}
	if changed {
		s.reopened()
	}
	return changed
}

// sealOf is the seal of a block or, above level 0, of a part of the tree; nil: none yet.
func (s *stage) sealOf(level uint8, number uint64) *protocol.Record {
	if level > 0 {
		return s.seals[sealName{level, number}]
	}
	if s.n == 0 {
		return s.top
	}
	block := protocol.Block(number).Range(s.n)
	rec := s.at(block.Lo).done
	if rec == nil || rec.Body.Kind() != protocol.KindSeal {
		return nil
	}
	s.each(block, func(_ protocol.Range, c *cell) bool {
		if !sameRecord(c.done, rec) {
			rec = nil
		}
		return rec != nil
	})
	return rec
}

// complete tells whether every task of a block is done.
func (s *stage) complete(b protocol.Block) bool {
	complete := true
	s.each(b.Range(s.n), func(_ protocol.Range, c *cell) bool {
		complete = c.done != nil
		return complete
	})
	return complete
}

// nearly tells whether at most so many tasks of a block are not done.
func (s *stage) nearly(b protocol.Block, left uint64) bool {
	n := uint64(0)
	s.each(b.Range(s.n), func(r protocol.Range, c *cell) bool {
		if c.done == nil {
			n += r.Len()
		}
		return n <= left
	})
	return n <= left
}

// count is the number of tasks for which is says yes.
func (s *stage) count(is func(*cell) bool) (n uint64) {
	s.each(s.all(), func(r protocol.Range, c *cell) bool {
		if is(c) {
			n += r.Len()
		}
		return true
	})
	return n
}

func (s *stage) sealNames() []sealName {
	names := make([]sealName, 0, len(s.seals))
	for name := range s.seals {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b sealName) int {
		if a.level != b.level {
			return int(a.level) - int(b.level)
		}
		return cmpUint(a.number, b.number)
	})
	return names
}

// headRecords calls f for each seal that is in no cell, and perhaps for nil.
func (s *stage) headRecords(f func(*protocol.Record)) {
	f(s.top)
	for _, name := range s.sealNames() {
		f(s.seals[name])
	}
}

// taskRecords calls f for each record of the tasks of r, at least once each and perhaps
// for nil: what began a life and seals before the records that count in it.
func (s *stage) taskRecords(r protocol.Range, f func(*protocol.Record)) {
	s.each(r, func(_ protocol.Range, c *cell) bool {
		f(c.reopen)
		if c.done != nil && c.done.Body.Kind() == protocol.KindSeal {
			f(c.done)
		}
		return true
	})
	var last cell
	s.each(r, func(_ protocol.Range, c *cell) bool {
		for _, p := range [...][2]*protocol.Record{{c.done, last.done}, {c.held, last.held}, {c.check, last.check}} {
			if p[0] != p[1] {
				f(p[0])
			}
		}
		for _, rec := range c.failed.all() {
			f(rec)
		}
		last = *c
		return true
	})
}

func same(a, b *cell) bool {
	return *a == *b || a.life == b.life && sameRecord(a.reopen, b.reopen) && sameRecord(a.done, b.done) &&
		sameRecord(a.held, b.held) && sameRecord(a.check, b.check) && a.failed == b.failed
}

func sameRecord(a, b *protocol.Record) bool {
	return a == b || a != nil && b != nil && a.Hash == b.Hash
}

func cmpUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
