package market

import (
	"errors"
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
)

// authority is a job of two stages with peer 1's Keep and Unkeep and peer 2's Keep in
// its ledger, and what the table below signs for it.
type authority struct {
	*testing.T
	l            *ledger
	first, later protocol.StageRef
	keep1, keep2 *protocol.Record
}

const authorityTasks = 1500

func newAuthority(t *testing.T) *authority {
	j := testJob(t, authorityTasks, withReduce(0))
	a := &authority{T: t, l: newLedger(j), first: firstRef(j)}
	a.later = protocol.StageRef{Job: j.ID, Stage: 1, Key: j.InputKey(1, []cid.Cid{drawnRoots[0]})}
	a.keep1 = signed(t, testPeer(1), &protocol.Keep{Job: j.ID, Groups: 3})
	a.keep2 = signed(t, testPeer(2), &protocol.Keep{Job: j.ID, Groups: 3})
	for _, rec := range []*protocol.Record{
		a.keep1, a.keep2, signed(t, testPeer(1), &protocol.Unkeep{Job: j.ID, Keep: a.keep1.Hash, Groups: 3}),
	} {
		if changed, err := a.l.add(rec); err != nil || !changed {
			t.Fatalf("%T: %v %v", rec.Body, changed, err)
		}
	}
	return a
}

func tasks(lo, hi protocol.TaskIndex) protocol.Range { return protocol.Range{Lo: lo, Hi: hi} }

// done is peer 3's Done with a receipt of peer n that names keep.
func (a *authority) done(ref protocol.StageRef, r protocol.Range, n int, keep protocol.Hash) *protocol.Record {
	b := &protocol.Done{StageRef: ref, Range: r, Page: testCID(cid.Raw, "page")}
	b.Receipts = []protocol.SignedReceipt{receiptOf(a, n, b, keep)}
	return signed(a, testPeer(3), b)
}

func (a *authority) seal(n int, b protocol.Seal) *protocol.Record {
	b.Root, b.Time = drawnRoots[0], 1
	return signed(a, testPeer(n), &b)
}

func (a *authority) released(n int, ref protocol.StageRef, r protocol.Range, keep protocol.Hash) *protocol.Record {
	return signed(a, testPeer(n), &protocol.Segment{
		StageRef: ref, Range: r, Epoch: 1, Cause: protocol.CauseReleaseFor, Replaced: testPeer(4).ID(), Keep: keep,
	})
}

func (a *authority) adopted(ref protocol.StageRef, r protocol.Range) *protocol.Record {
	return signed(a, testPeer(3), &protocol.Segment{StageRef: ref, Range: r, Epoch: 1, Cause: protocol.CauseAdopt, Holder: testPeer(3).ID()})
}

func (a *authority) failed(ref protocol.StageRef, t protocol.TaskIndex) *protocol.Record {
	return signed(a, testPeer(3), &protocol.Failed{StageRef: ref, Task: t, Attempt: 1, Reason: protocol.ReasonTrap})
}

func (a *authority) checkpoint(ref protocol.StageRef, t protocol.TaskIndex) *protocol.Record {
	return signed(a, testPeer(3), &protocol.Checkpoint{StageRef: ref, Task: t, State: testCID(cid.Raw, "state")})
}

func (a *authority) reopen(n int, ref protocol.StageRef, r protocol.Range, keep protocol.Hash) *protocol.Record {
	return signed(a, testPeer(n), &protocol.Reopen{StageRef: ref, Range: r, Life: 1, Cause: protocol.ReopenLost, Keep: keep})
}

// authorityCase is a record and the error that it is refused with; nil: it is taken.
type authorityCase struct {
	what string
	rec  *protocol.Record
	want error
}

// authorityNames is what the cases name that is not there.
type authorityNames struct {
	foreign, wrong, none protocol.StageRef // of another job, under another key, of no stage
	unknown              protocol.Hash     // no Keep known
	over                 protocol.Range    // past the end
	past                 protocol.TaskIndex
}

func (a *authority) names() authorityNames {
	n := authorityNames{foreign: a.first, wrong: a.first, none: a.first, unknown: protocol.Hash{9}}
	n.foreign.Job = protocol.JobIDOf(testCID(cid.DagCBOR, "another job"))
	n.wrong.Key = protocol.Hash{1}
	n.none.Stage = 2
	n.over, n.past = tasks(authorityTasks-1, authorityTasks+1), authorityTasks
	return n
}

// ranges are the cases of records of the job and of ranges.
func (a *authority) ranges() []authorityCase {
	t, id, first, later := a, a.l.job.ID, a.first, a.later
	n, k2, all := a.names(), a.keep2.Hash, tasks(0, 10)
	foreign, wrong, none, unknown, over := n.foreign, n.wrong, n.none, n.unknown, n.over
	return []authorityCase{
		{"control of another job", signed(t, insecure.SignAs(testOwner), &protocol.Control{Job: foreign.Job, Sequence: 1, Verb: protocol.VerbCancel}), errForeign},
		{"cancel by a keeper", signed(t, testPeer(2), &protocol.Control{Job: id, Sequence: 1, Verb: protocol.VerbCancel}), errOwner},
		{"retry by the submitter's peer", signed(t, testPeer(0), &protocol.Control{Job: id, Sequence: 1, Verb: protocol.VerbRetry}), errOwner},
		{"keep of another job", signed(t, testPeer(3), &protocol.Keep{Job: foreign.Job}), errForeign},
		{"unkeep of another's keep", signed(t, testPeer(1), &protocol.Unkeep{Job: id, Keep: k2, Groups: 1}), errKeep},
		{"unkeep of no keep known", signed(t, testPeer(1), &protocol.Unkeep{Job: id, Keep: unknown}), errUnknown},
		{"opaque of another job", opaque(foreign.Job, 12), errForeign},

		{"segment of another job", a.adopted(foreign, all), errForeign},
		{"segment past the end", a.adopted(first, over), errShape},
		{"segment of no stage", a.adopted(none, all), errShape},
		{"segment under another key", a.adopted(wrong, all), errUnknown},
		{"segment of a stage not open", a.adopted(later, tasks(0, 1)), errUnknown},
		{"release for another with another's keep", a.released(3, first, all, k2), errKeep},
		{"release for another with no keep known", a.released(2, first, all, unknown), errUnknown},

		{"done of another job", a.done(foreign, all, 2, k2), errForeign},
		{"done past the end", a.done(first, over, 2, k2), errShape},
		{"done of no stage", a.done(none, all, 2, k2), errShape},
		{"done under another key", a.done(wrong, all, 2, k2), errUnknown},
		{"done of a stage not open", a.done(later, tasks(0, 1), 2, k2), errUnknown},
		{"done with a receipt that names another's keep", a.done(first, all, 3, k2), errReceipts},
		{"done with a receipt that names no keep known", a.done(first, all, 2, unknown), errUnknown},
	}
}

// others are the cases of records of tasks, blocks and lives.
func (a *authority) others() []authorityCase {
	first, later := a.first, a.later
	n, k2, all := a.names(), a.keep2.Hash, tasks(0, 10)
	foreign, wrong, none, unknown, over, past := n.foreign, n.wrong, n.none, n.unknown, n.over, n.past
	return []authorityCase{
		{"failed of another job", a.failed(foreign, 0), errForeign},
		{"failed past the end", a.failed(first, past), errShape},
		{"failed of no stage", a.failed(none, 0), errShape},
		{"failed under another key", a.failed(wrong, 0), errUnknown},
		{"failed of a stage not open", a.failed(later, 0), errUnknown},

		{"checkpoint of another job", a.checkpoint(foreign, 0), errForeign},
		{"checkpoint past the end", a.checkpoint(first, past), errShape},
		{"checkpoint of no stage", a.checkpoint(none, 0), errShape},
		{"checkpoint under another key", a.checkpoint(wrong, 0), errUnknown},
		{"checkpoint of a stage not open", a.checkpoint(later, 0), errUnknown},

		{"seal of another job", a.seal(2, protocol.Seal{StageRef: foreign, Keep: k2}), errForeign},
		{"seal by no keeper", a.seal(3, protocol.Seal{StageRef: first, Keep: k2}), errKeep},
		{"seal with no keep known", a.seal(2, protocol.Seal{StageRef: first, Keep: unknown}), errUnknown},
		{"seal of a block past the end", a.seal(2, protocol.Seal{StageRef: first, Number: 2, Keep: k2}), errShape},
		{"seal of a node past the end", a.seal(2, protocol.Seal{StageRef: first, Level: 1, Number: 1, Keep: k2}), errShape},
		{"seal above the top", a.seal(2, protocol.Seal{StageRef: first, Level: 2, Keep: k2}), errShape},
		{"seal of no stage", a.seal(2, protocol.Seal{StageRef: none, Level: 1, Keep: k2}), errShape},
		{"seal under another key", a.seal(2, protocol.Seal{StageRef: wrong, Keep: k2}), errUnknown},
		{"seal of a stage not open", a.seal(2, protocol.Seal{StageRef: later, Keep: k2}), errUnknown},

		{"reopen of another job", a.reopen(2, foreign, all, k2), errForeign},
		{"reopen by no keeper", a.reopen(3, first, all, k2), errKeep},
		{"reopen with no keep known", a.reopen(2, first, all, unknown), errUnknown},
		{"reopen past the end", a.reopen(2, first, over, k2), errShape},
		{"reopen of no stage", a.reopen(2, none, all, k2), errShape},
		{"reopen under another key", a.reopen(2, wrong, all, k2), errUnknown},
		{"reopen of a stage not open", a.reopen(2, later, tasks(0, 1), k2), errUnknown},
	}
}

// taken are records that count. A keeper that has revoked its Keep signs on: whether it
// has is not in the bytes.
func (a *authority) taken() []authorityCase {
	t, id, first, k1, past := a, a.l.job.ID, a.first, a.keep1.Hash, a.names().past
	return []authorityCase{
		{"seal by who was a keeper", a.seal(1, protocol.Seal{StageRef: first, Keep: k1}), nil},
		{"release for another by who was a keeper", a.released(1, first, tasks(1024, 1030), k1), nil},
		{"reopen by who was a keeper", a.reopen(1, first, tasks(1100, 1110), k1), nil},
		{"done with one receipt of who was a keeper", a.done(first, tasks(1200, 1210), 1, k1), nil},
		{"failed", a.failed(first, past-1), nil},
		{"checkpoint", a.checkpoint(first, past-1), nil},
		{"cancel", signed(t, insecure.SignAs(testOwner), &protocol.Control{Job: id, Sequence: 1, Verb: protocol.VerbCancel}), nil},
	}
}

// Every kind of record, signed by who may not, naming what is not its signer's, out of
// range, or under another key, is refused and leaves the ledger as it was. That
// protocol refuses what a record's own bytes show is tested there.
func TestAuthority(t *testing.T) {
	a := newAuthority(t)
	for _, c := range slices.Concat(a.ranges(), a.others(), a.taken()) {

		version, digest := a.l.version, a.l.hash()
		changed, err := a.l.add(c.rec)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if changed != (err == nil) || c.want != nil && (a.l.version != version || a.l.hash() != digest || a.l.digest() != digest) {
			t.Errorf("%s: changed %v, version %d to %d", c.what, changed, version, a.l.version)
		}
	}
}

// Through Step, what is not authorised is neither kept, nor passed on, nor written to
// the journal.
func TestUnauthorisedNewsLeaveNoTrace(t *testing.T) {
	j := testJob(t, 100, nil)
	m := testMachine(t, 0, nil)
	step(t, m, 0, Submit{j})
	step(t, m, 0, PeerUp{testPeer(1).ID()})
	m.Ready()
	digest := m.Digest(j.ID)
	cancel := signed(t, testPeer(1), &protocol.Control{Job: j.ID, Sequence: 1, Verb: protocol.VerbCancel})
	step(t, m, 1, Received{testPeer(1).ID(), &protocol.News{Job: j.ID, Records: []protocol.Record{*cancel}}})
	e := m.Ready()
	if len(e.Persist) > 0 || len(e.Stop) > 0 || len(e.Changed) > 0 || m.Digest(j.ID) != digest {
		t.Errorf("a cancel that the owner did not sign: %d entries, %d stops, changed %v", len(e.Persist), len(e.Stop), e.Changed)
	}
	for _, s := range e.Send {
		if n, ok := s.Message.(*protocol.News); ok {
			for _, r := range n.Records {
				if r.Hash == cancel.Hash {
					t.Errorf("passed on to %s", s.To)
				}
			}
		}
	}
}

// The caps on what any peer may add do not depend on the order in which it comes.
func TestCapsConverge(t *testing.T) {
	j := testJob(t, 10, nil)
	var list []*protocol.Record
	for n := range MaxOpaque + 40 {
		list = append(list, opaque(j.ID, uint8(10+n)))
	}
	for n := range MaxKeeps + 40 {
		list = append(list, signed(t, testPeer(n%50), &protocol.Keep{Job: j.ID, Groups: 1, Sequence: protocol.Sequence{Counter: uint64(n)}}))
	}
	up, down := newLedger(j), newLedger(j)
	for i := range list {
		for l, rec := range map[*ledger]*protocol.Record{up: list[i], down: list[len(list)-1-i]} {
			if _, err := l.add(rec); err != nil && !errors.Is(err, errFull) {
				t.Fatal(err)
			}
		}
	}
	if len(up.opaque) > MaxOpaque || len(up.keeps) > MaxKeeps {
		t.Errorf("%d opaque records and %d keeps, at most %d and %d", len(up.opaque), len(up.keeps), MaxOpaque, MaxKeeps)
	}
	if up.digest() != down.digest() {
		t.Error("two orders of the same records leave two ledgers")
	}
	version := up.version
	for _, rec := range list {
		if changed, _ := up.add(rec); changed {
			t.Fatal("a full ledger goes on changing")
		}
	}
	if up.version != version {
		t.Error("the version grows without a change")
	}
}
