package market

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Errors of the authority rule. errUnknown means that what the record names is not here
// yet: whoever sent it will offer it again by exchange.
var (
	errForeign  = errors.New("market: record of another job")
	errOwner    = errors.New("market: control not signed by the job's owner")
	errShape    = errors.New("market: record does not fit the manifest")
	errKeep     = errors.New("market: record names a Keep that is not its signer's")
	errUnknown  = errors.New("market: record names a Keep or a stage that is not known here")
	errReceipts = errors.New("market: done without a valid receipt")
	errFull     = errors.New("market: ledger is at its limit")
)

// hardSpans bounds the spans of a stage against who signs segments to fill our memory:
// 64 MiB. What honest peers hold stays under MaxSegments, beside the results in open blocks.
const hardSpans = 64 * MaxSegments

// ledger is a job's replicated state: the join of the signed records that were added.
// Two ledgers of a job with the same records, in whatever order, are equal. A member
// that is no keeper has one with the records that concern it.
type ledger struct {
	job     *job.Signed
	end     *protocol.Record // Control: cancel or remove, which absorb
	order   *protocol.Record // Control: the newest pause, resume or retry
	retry   *protocol.Record // Control: the newest retry
	keeps   map[protocol.Hash]*protocol.Record
	unkeeps map[protocol.Hash]*protocol.Record // by the Unkeep's own hash
	stages  []*stage                           // nil: not open
	opaque  map[protocol.Hash]*protocol.Record
	version uint64  // grows with every change
	kept    *roster // of keeps and unkeeps; nil: to be made

	digested uint64 // the version that hashed is of, and one; 0: none
	hashed   protocol.Hash
}

func newLedger(j *job.Signed) *ledger {
	l := &ledger{
		job: j, keeps: map[protocol.Hash]*protocol.Record{}, unkeeps: map[protocol.Hash]*protocol.Record{},
		stages: make([]*stage, len(j.Manifest.Stages)), opaque: map[protocol.Hash]*protocol.Record{},
	}
	l.open()
	return l
}

// generation is the owner's last retry.
func (l *ledger) generation() protocol.Generation {
	if l.retry == nil {
		return 0
	}
	return protocol.Generation(l.retry.Body.(*protocol.Control).Sequence)
}

// open makes the state of each stage whose sources are sealed, and drops what was
// computed under another key. It tells which stage opened first anew; -1: none.
func (l *ledger) open() int {
	first := -1
	for i := range l.stages {
		m := &l.job.Manifest.Stages[i]
		var roots []cid.Cid
		if m.Source.Kind == job.SourceOutputs {
			src := l.stages[m.Source.Stage]
			if src == nil || src.top == nil {
				l.stages[i] = nil
				continue
			}
			roots = []cid.Cid{src.top.Body.(*protocol.Seal).Root}
		}
		ref := protocol.StageRef{Job: l.job.ID, Stage: protocol.StageIndex(i), Key: l.job.InputKey(protocol.StageIndex(i), roots)}
		if s := l.stages[i]; s != nil && s.ref == ref {
			continue
		}
		l.stages[i] = newStage(ref, m.Tasks, l.job.Manifest.Submitter)
		if first < 0 {
			first = i
		}
	}
	return first
}

// stage is the state that ref names; nil where its stage is not open or has another key.
func (l *ledger) stage(ref protocol.StageRef) *stage {
	if ref.Job != l.job.ID || int(ref.Stage) >= len(l.stages) {
		return nil
	}
	if s := l.stages[ref.Stage]; s != nil && s.ref == ref {
		return s
	}
	return nil
}

// add joins a record into the ledger and tells whether that changed it. A record that
// is not valid, by its bytes, the manifest and the records it names, is an error.
func (l *ledger) add(rec *protocol.Record) (bool, error) {
	if rec.Body.JobID() != l.job.ID {
		return false, errForeign
	}
	changed, err := l.join(rec)
	if changed {
		l.version++
	}
	return changed, err
}

func (l *ledger) join(rec *protocol.Record) (bool, error) {
	switch b := rec.Body.(type) {
	case *protocol.Control:
		if rec.Signer != l.job.Manifest.Owner {
			return false, errOwner
		}
		return l.control(rec, b), nil
	case *protocol.Keep:
		l.kept = nil
		return putKeep(l.keeps, rec), nil
	case *protocol.Unkeep:
		if k := l.keeps[b.Keep]; k == nil {
			return false, errUnknown
		} else if k.Signer != rec.Signer {
			return false, errKeep
		}
		l.kept = nil
		return put(l.unkeeps, rec, MaxKeeps), nil
	case *protocol.Opaque:
		return put(l.opaque, rec, MaxOpaque), nil
	}
	s, err := l.check(rec)
	if err != nil {
		return false, err
	}
	switch b := rec.Body.(type) {
	case *protocol.Segment:
		return s.apply(b.Range, rec), nil
	case *protocol.Done:
		return s.apply(b.Range, rec), nil
	case *protocol.Reopen:
		defer s.reopened()
		return s.apply(b.Range, rec), nil
	case *protocol.Failed:
		return s.apply(protocol.Range{Lo: b.Task, Hi: b.Task + 1}, rec), nil
	case *protocol.Checkpoint:
		return s.apply(protocol.Range{Lo: b.Task, Hi: b.Task + 1}, rec), nil
	case *protocol.Seal:
		if !s.seal(rec) {
			return false, nil
		}
		l.open()
		return true, nil
	}
	return false, errShape
}

// stands tells whether a result, a segment or a checkpoint is still that of one of its
// tasks. Of other records it says yes.
func (l *ledger) stands(rec *protocol.Record) bool {
	var ref protocol.StageRef
	var r protocol.Range
	var of func(*cell) *protocol.Record
	switch b := rec.Body.(type) {
	case *protocol.Segment:
		ref, r, of = b.StageRef, b.Range, func(c *cell) *protocol.Record { return c.held }
	case *protocol.Done:
		ref, r, of = b.StageRef, b.Range, func(c *cell) *protocol.Record { return c.done }
	case *protocol.Checkpoint:
		ref, r, of = b.StageRef, protocol.Range{Lo: b.Task, Hi: b.Task + 1}, func(c *cell) *protocol.Record { return c.check }
	default:
		return true
	}
	found := false
	if s := l.stage(ref); s != nil {
		s.each(r.Intersect(s.all()), func(_ protocol.Range, c *cell) bool {
			found = sameRecord(of(c), rec)
			return !found
		})
	}
	return found
}

// control joins an order: cancel and remove absorb, else the highest sequence, then
// the record's hash.
func (l *ledger) control(rec *protocol.Record, b *protocol.Control) bool {
	newer := func(old *protocol.Record) bool {
		if old == nil {
			return true
		}
		o := old.Body.(*protocol.Control).Sequence
		return b.Sequence > o || b.Sequence == o && before(rec, old)
	}
	switch b.Verb {
	case protocol.VerbCancel, protocol.VerbRemove:
		if l.end != nil && !(b.Verb > l.end.Body.(*protocol.Control).Verb || b.Verb == l.end.Body.(*protocol.Control).Verb && before(rec, l.end)) {
			return false
		}
		l.end = rec
		return true
	case protocol.VerbRetry:
		if newer(l.retry) {
			l.retry = rec
			if newer(l.order) {
				l.order = rec
			}
			return true
		}
		return false
	}
	if newer(l.order) {
		l.order = rec
		return true
	}
	return false
}

// check holds a stage's record against the manifest and the records it names.
func (l *ledger) check(rec *protocol.Record) (*stage, error) {
	var ref protocol.StageRef
	var r protocol.Range
	keep := protocol.Hash{}
	switch b := rec.Body.(type) {
	case *protocol.Segment:
		ref, r, keep = b.StageRef, b.Range, b.Keep
		if (b.Cause == protocol.CauseReleaseFor) != !keep.IsZero() {
			return nil, errShape
		}
	case *protocol.Done:
		ref, r = b.StageRef, b.Range
	case *protocol.Failed:
		ref, r = b.StageRef, protocol.Range{Lo: b.Task, Hi: b.Task + 1}
		if b.Generation > l.generation() {
			return nil, errUnknown
		}
	case *protocol.Checkpoint:
		ref, r = b.StageRef, protocol.Range{Lo: b.Task, Hi: b.Task + 1}
	case *protocol.Reopen:
		ref, r, keep = b.StageRef, b.Range, b.Keep
	case *protocol.Seal:
		ref, keep = b.StageRef, b.Keep
		shape := job.SealShape(l.tasks(ref.Stage))
		if int(ref.Stage) >= len(l.stages) || int(b.Level) >= len(shape) || b.Number >= shape[b.Level] {
			return nil, errShape
		}
	default:
		return nil, errShape
	}
	if uint64(r.Hi) > l.tasks(ref.Stage) || r.Lo > r.Hi {
		return nil, fmt.Errorf("%w: tasks %v of stage %d", errShape, r, ref.Stage)
	}
	if !keep.IsZero() {
		if err := l.keptBy(keep, rec.Signer); err != nil {
			return nil, err
		}
	}
	if b, ok := rec.Body.(*protocol.Done); ok {
		if err := l.receipts(b); err != nil {
			return nil, err
		}
	}
	s := l.stage(ref)
	if s == nil || !s.begun(r, rec.Body) {
		return nil, errUnknown
	}
	if len(s.spans) >= hardSpans {
		return nil, errFull
	}
	return s, nil
}

// tasks is the size of a stage; 0 where there is no such stage.
func (l *ledger) tasks(i protocol.StageIndex) uint64 {
	if int(i) >= len(l.job.Manifest.Stages) {
		return 0
	}
	return l.job.Manifest.Stages[i].Tasks
}

// keptBy tells whether keep is a Keep of p, later revoked or not.
func (l *ledger) keptBy(keep protocol.Hash, p protocol.PeerID) error {
	k := l.keeps[keep]
	if k == nil {
		return errUnknown
	}
	if k.Signer != p {
		return errKeep
	}
	return nil
}

// receipts wants one valid receipt.
func (l *ledger) receipts(b *protocol.Done) error {
	err := errReceipts
	for i := range b.Receipts {
		r := &b.Receipts[i]
		if e := l.keptBy(r.Keep, r.Signer); e == nil {
			return nil
		} else if errors.Is(e, errUnknown) {
			err = errUnknown
		}
	}
	return err
}

// state is how far the job is: cancelled beats done beats failed beats running.
func (l *ledger) state() (protocol.JobState, string) {
	if l.end != nil {
		return protocol.JobCancelled, "cancelled by its owner"
	}
	if last := l.stages[len(l.stages)-1]; last != nil && last.top != nil {
		return protocol.JobDone, ""
	}
	for _, s := range l.stages {
		if s == nil {
			break
		}
		if rec := l.failure(s); rec != nil {
			return protocol.JobFailed, failureText(rec)
		}
	}
	return protocol.JobRunning, ""
}

// exhausted tells whether a task has no attempts left.
func (l *ledger) exhausted(c *cell) bool {
	return c.done == nil && c.failed != nil && c.failed.total(l.generation()) > l.job.Manifest.Retries
}

// failure is a record of the task by which the job has failed; nil while it has not.
// With KeepGoing it fails once every other task of the stage is done.
func (l *ledger) failure(s *stage) *protocol.Record {
	if s.tally.failed == 0 {
		return nil
	}
	var rec *protocol.Record
	left := false
	s.each(s.all(), func(_ protocol.Range, c *cell) bool {
		if l.exhausted(c) {
			if rec == nil {
				rec = slices.MaxFunc(c.failed.records, func(a, b *protocol.Record) int {
					return cmp.Compare(failedOf(a).Attempt, failedOf(b).Attempt)
				})
			}
		} else if c.done == nil {
			left = true
		}
		return rec == nil || l.job.Manifest.KeepGoing && !left
	})
	if left && l.job.Manifest.KeepGoing {
		return nil
	}
	return rec
}

func failureText(rec *protocol.Record) string {
	b := failedOf(rec)
	text := fmt.Sprintf("stage %d task %d: ", b.Stage, b.Task)
	switch b.Reason {
	case protocol.ReasonExit:
		text += fmt.Sprintf("exit status %d", b.Exit)
	case protocol.ReasonTrap:
		text += "trap"
	case protocol.ReasonTimeout:
		text += "passed its time limit"
	case protocol.ReasonHang:
		text += "passed its time limit after it went on from a checkpoint"
	case protocol.ReasonMemory:
		text += "passed its memory limit"
	case protocol.ReasonOutput:
		text += "passed its output limit"
	case protocol.ReasonDisk:
		text += "passed its disk limit"
	case protocol.ReasonDeath:
		text += "meshd died while it ran alone"
	default:
		text += "failed"
	}
	if b.Detail != "" {
		text += ": " + b.Detail
	}
	return text
}

// records is the visible state, in an order in which each record comes after those it
// names and after the seals that open its stage.
func (l *ledger) records() []protocol.Record {
	var list []protocol.Record
	seen := map[protocol.Hash]bool{}
	add := func(r *protocol.Record) {
		if r != nil && !seen[r.Hash] {
			seen[r.Hash] = true
			list = append(list, *r)
		}
	}
	l.commonRecords(add)
	for _, s := range l.stages {
		if s != nil {
			s.headRecords(add)
			s.taskRecords(s.all(), add)
		}
	}
	return list
}

// commonRecords calls f for each record that belongs to no stage.
func (l *ledger) commonRecords(f func(*protocol.Record)) {
	for _, set := range []map[protocol.Hash]*protocol.Record{l.keeps, l.unkeeps, l.opaque} {
		for _, r := range sorted(set) {
			f(r)
		}
	}
	f(l.end)
	f(l.order)
	f(l.retry)
}

// digest is the hash of the visible state.
func (l *ledger) digest() protocol.Hash {
	if l.digested != l.version+1 {
		l.digested, l.hashed = l.version+1, l.hash()
	}
	return l.hashed
}
