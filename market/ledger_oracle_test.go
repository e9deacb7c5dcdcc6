package market

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// oracle is the visible state of a set of records, computed task by task from the words
// of docs/design.md section 5.1: no spans, no order of arrival, no records that are
// dropped. It is slow and has nothing in common with the ledger but the manifest.
type oracle struct {
	job    *job.Signed
	keeps  map[protocol.Hash]*protocol.Record
	end    *protocol.Record
	order  *protocol.Record
	retry  *protocol.Record
	stages []oracleStage
}

type oracleStage struct {
	open  bool
	ref   protocol.StageRef
	top   *protocol.Record
	cells []oracleCell
}

type oracleCell struct {
	life                      protocol.Life
	reopen, done, held, check *protocol.Record
	failed                    []*protocol.Record // by signer
	generation                protocol.Generation
}

// rank is the hash that breaks a tie.
func rank(ref protocol.StageRef, n uint64, who protocol.PeerID) []byte {
	h := sha256.New()
	h.Write([]byte(ref.Job))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(ref.Stage)))
	h.Write(ref.Key[:])
	h.Write(binary.BigEndian.AppendUint64(nil, n))
	h.Write([]byte(who))
	return h.Sum(nil)
}

// best is the record that stands by compare, then by the lower record hash; nil of none.
func best(list []*protocol.Record, compare func(a, b *protocol.Record) int) *protocol.Record {
	if len(list) == 0 {
		return nil
	}
	return slices.MinFunc(list, func(a, b *protocol.Record) int {
		return cmp.Or(compare(a, b), bytes.Compare(a.Hash[:], b.Hash[:]))
	})
}

func newOracle(j *job.Signed, all []*protocol.Record) *oracle {
	o := &oracle{job: j, keeps: map[protocol.Hash]*protocol.Record{}}
	var ends, orders, retries []*protocol.Record
	for _, r := range all {
		switch b := r.Body.(type) {
		case *protocol.Keep:
			o.keeps[r.Hash] = r
		case *protocol.Control:
			if b.Verb == protocol.VerbCancel || b.Verb == protocol.VerbRemove {
				ends = append(ends, r)
				continue
			}
			orders = append(orders, r)
			if b.Verb == protocol.VerbRetry {
				retries = append(retries, r)
			}
		}
	}
	newest := func(a, b *protocol.Record) int {
		return cmp.Compare(b.Body.(*protocol.Control).Sequence, a.Body.(*protocol.Control).Sequence)
	}
	o.order, o.retry = best(orders, newest), best(retries, newest)
	o.end = best(ends, func(a, b *protocol.Record) int { // remove, which takes the results too, beats cancel
		return cmp.Compare(b.Body.(*protocol.Control).Verb, a.Body.(*protocol.Control).Verb)
	})
	for i := range j.Manifest.Stages {
		o.stages = append(o.stages, o.stage(protocol.StageIndex(i), all))
	}
	return o
}

func (o *oracle) stage(i protocol.StageIndex, all []*protocol.Record) oracleStage {
	m := &o.job.Manifest.Stages[i]
	var roots []cid.Cid
	if m.Source.Kind == job.SourceOutputs {
		top := o.stages[m.Source.Stage].top
		if top == nil {
			return oracleStage{}
		}
		roots = append(roots, top.Body.(*protocol.Seal).Root)
	}
	s := oracleStage{open: true, ref: protocol.StageRef{Job: o.job.ID, Stage: i, Key: o.job.InputKey(i, roots)}}
	var tops []*protocol.Record
	for _, r := range all {
		if b, ok := r.Body.(*protocol.Seal); ok && b.StageRef == s.ref && int(b.Level) == job.TopLevel(m.Tasks) {
			tops = append(tops, r)
		}
	}
	s.top = best(tops, sealOrder(s.ref))
	lives := make([]protocol.Life, m.Tasks)
	for t := range lives {
		for _, r := range all {
			if life, ok := s.about(r, protocol.TaskIndex(t)); ok && ofKeeper(r) {
				lives[t] = max(lives[t], life) // only a keeper's word starts one
			}
		}
	}
	begun := slices.DeleteFunc(slices.Clone(all), func(r *protocol.Record) bool {
		for t := range lives {
			if life, ok := s.about(r, protocol.TaskIndex(t)); ok && !ofKeeper(r) && life > lives[t] {
				return true // names a life that has not begun in all of its range
			}
		}
		return false
	})
	for t := range lives {
		s.cells = append(s.cells, s.cell(protocol.TaskIndex(t), lives[t], begun, o.generation()))
	}
	return s
}

// ofKeeper tells whether a record is one that only keepers sign, and so may start a life.
func ofKeeper(r *protocol.Record) bool {
	return r.Body.Kind() == protocol.KindReopen || r.Body.Kind() == protocol.KindSeal
}

func sealOrder(ref protocol.StageRef) func(a, b *protocol.Record) int {
	return func(a, b *protocol.Record) int {
		first := func(r *protocol.Record) uint64 {
			s := r.Body.(*protocol.Seal)
			return s.Number << (10 * (uint(s.Level) + 1))
		}
		return bytes.Compare(rank(ref, first(a), a.Signer), rank(ref, first(b), b.Signer))
	}
}

// about gives the life that a record of this stage speaks of, if it is about task t.
func (s *oracleStage) about(r *protocol.Record, t protocol.TaskIndex) (protocol.Life, bool) {
	switch b := r.Body.(type) {
	case *protocol.Segment:
		return b.Life, b.StageRef == s.ref && b.Range.Lo <= t && t < b.Range.Hi
	case *protocol.Done:
		return b.Life, b.StageRef == s.ref && b.Range.Lo <= t && t < b.Range.Hi
	case *protocol.Reopen:
		return b.Life, b.StageRef == s.ref && b.Range.Lo <= t && t < b.Range.Hi
	case *protocol.Failed:
		return b.Life, b.StageRef == s.ref && b.Task == t
	case *protocol.Checkpoint:
		return b.Life, b.StageRef == s.ref && b.Task == t
	case *protocol.Seal:
		return b.Life, b.StageRef == s.ref && b.Level == 0 && uint64(t)>>10 == b.Number
	}
	return 0, false
}

func (s *oracleStage) cell(t protocol.TaskIndex, life protocol.Life, all []*protocol.Record, last protocol.Generation) oracleCell {
	c := oracleCell{life: life}
	of := map[protocol.Kind][]*protocol.Record{}
	for _, r := range all {
		if life, ok := s.about(r, t); ok && life == c.life {
			of[r.Body.Kind()] = append(of[r.Body.Kind()], r)
		}
	}
	c.reopen = best(of[protocol.KindReopen], func(a, b *protocol.Record) int { return 0 })
	if c.done = best(of[protocol.KindSeal], sealOrder(s.ref)); c.done != nil {
		return c
	}
	c.done = best(of[protocol.KindDone], func(a, b *protocol.Record) int {
		return bytes.Compare(rank(s.ref, uint64(t), a.Signer), rank(s.ref, uint64(t), b.Signer))
	})
	if c.done != nil {
		return c
	}
	c.held = best(of[protocol.KindSegment], func(a, b *protocol.Record) int {
		x, y := a.Body.(*protocol.Segment), b.Body.(*protocol.Segment)
		return cmp.Or(cmp.Compare(y.Epoch, x.Epoch), bytes.Compare(rank(s.ref, uint64(x.Epoch), x.Holder), rank(s.ref, uint64(y.Epoch), y.Holder)))
	})
	c.check = best(of[protocol.KindCheckpoint], func(a, b *protocol.Record) int {
		x, y := a.Body.(*protocol.Checkpoint), b.Body.(*protocol.Checkpoint)
		return cmp.Or(cmp.Compare(y.Epoch, x.Epoch), cmp.Compare(y.Sequence, x.Sequence))
	})
	c.failures(of[protocol.KindFailed], last)
	return c
}

// failures takes those of generations up to last, the owner's newest retry.
func (c *oracleCell) failures(list []*protocol.Record, last protocol.Generation) {
	list = slices.DeleteFunc(list, func(r *protocol.Record) bool { return r.Body.(*protocol.Failed).Generation > last })
	for _, r := range list {
		c.generation = max(c.generation, r.Body.(*protocol.Failed).Generation)
	}
	by := map[protocol.PeerID][]*protocol.Record{}
	for _, r := range list {
		if r.Body.(*protocol.Failed).Generation == c.generation {
			by[r.Signer] = append(by[r.Signer], r)
		}
	}
	for _, p := range sortedKeys(by) {
		c.failed = append(c.failed, best(by[p], func(a, b *protocol.Record) int {
			return cmp.Compare(b.Body.(*protocol.Failed).Attempt, a.Body.(*protocol.Failed).Attempt)
		}))
	}
}

// generation is the owner's newest retry.
func (o *oracle) generation() protocol.Generation {
	if o.retry == nil {
		return 0
	}
	return protocol.Generation(o.retry.Body.(*protocol.Control).Sequence)
}

// state is how far the job is.
func (o *oracle) state() protocol.JobState {
	if o.end != nil {
		return protocol.JobCancelled
	}
	if o.stages[len(o.stages)-1].top != nil {
		return protocol.JobDone
	}
	generation := o.generation()
	for _, s := range o.stages {
		lost, left := 0, 0
		for _, c := range s.cells {
			n := 0
			for _, r := range c.failed {
				n += int(r.Body.(*protocol.Failed).Attempt)
			}
			switch {
			case c.done != nil:
			case c.generation == generation && n > o.job.Manifest.Retries:
				lost++
			default:
				left++
			}
		}
		if lost > 0 && (left == 0 || !o.job.Manifest.KeepGoing) {
			return protocol.JobFailed
		}
	}
	return protocol.JobRunning
}

func hashOf(r *protocol.Record) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%T %s", r.Body, r.Hash.String()[:8])
}

// describe is a cell in words, to be compared.
func describe(life protocol.Life, reopen, done, held, check *protocol.Record, failed []*protocol.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "life %d reopen %s done %s held %s check %s failed", life, hashOf(reopen), hashOf(done), hashOf(held), hashOf(check))
	for _, r := range failed {
		b.WriteString(" " + hashOf(r))
	}
	return b.String()
}

func (c *oracleCell) String() string {
	return describe(c.life, c.reopen, c.done, c.held, c.check, c.failed)
}

func (c *cell) String() string {
	return describe(c.life, c.reopen, c.done, c.held, c.check, c.failed.all())
}

// differs tells where a ledger is not what the oracle says; empty: nowhere.
func (o *oracle) differs(l *ledger) string {
	for i, r := range []*protocol.Record{l.end, l.order, l.retry} {
		if want := []*protocol.Record{o.end, o.order, o.retry}[i]; hashOf(r) != hashOf(want) {
			return fmt.Sprintf("control %d: %s, want %s", i, hashOf(r), hashOf(want))
		}
	}
	if got, _ := l.state(); got != o.state() {
		return fmt.Sprintf("state %d, want %d", got, o.state())
	}
	for i := range o.stages {
		want, got := &o.stages[i], l.stages[i]
		if want.open != (got != nil) {
			return fmt.Sprintf("stage %d: open %v, want %v", i, got != nil, want.open)
		}
		if got == nil {
			continue
		}
		if got.ref != want.ref || hashOf(got.top) != hashOf(want.top) {
			return fmt.Sprintf("stage %d: key %v top %s, want %v %s", i, got.ref.Key, hashOf(got.top), want.ref.Key, hashOf(want.top))
		}
		for t := range want.cells {
			if g, w := got.at(protocol.TaskIndex(t)).String(), want.cells[t].String(); g != w {
				return fmt.Sprintf("stage %d task %d:\n got %s\nwant %s", i, t, g, w)
			}
		}
	}
	return ""
}
