package market

import (
	"crypto/sha256"
	"fmt"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// drawn is a job and records of it that are likely to meet: few signers, lives, epochs
// and roots, and ranges near one another and near the ends of blocks.
type drawn struct {
	job   *job.Signed
	keeps []*protocol.Record
	all   []*protocol.Record
}

// seals have one of two roots.
var drawnRoots = [...]cid.Cid{testCID(cid.DagCBOR, "root A"), testCID(cid.DagCBOR, "root B")}

func drawLedger(t *rapid.T) *drawn {
	tasks := rapid.SampledFrom([]uint64{0, 1, 6, 6, 30, 30, 1030, 2060}).Draw(t, "tasks")
	d := &drawn{}
	d.job = testJob(t, tasks, func(s *job.Spec) {
		withReduce(rapid.SampledFrom([]uint64{0, 4}).Draw(t, "fan-in"))(s)
		s.Retries = rapid.IntRange(0, 3).Draw(t, "retries")
		s.KeepGoing = rapid.Bool().Draw(t, "keep going")
	})
	for n := range rapid.IntRange(1, 4).Draw(t, "keeps") {
		d.keep(t, n)
	}
	for range rapid.IntRange(1, 50).Draw(t, "records") {
		d.draw(t)
	}
	// The records in an order of their own: what they name may come after them.
	d.all = rapid.Permutation(d.all).Draw(t, "order")
	return d
}

func (d *drawn) add(t *rapid.T, s protocol.Signer, b protocol.Body) {
	rec, err := protocol.SignRecord(s, b)
	if err != nil {
		t.Fatalf("%T: %v", b, err)
	}
	d.all = append(d.all, &rec)
}

// keep adds a Keep of peer 1 or 2 (so that some have two), and perhaps its Unkeep.
func (d *drawn) keep(t *rapid.T, n int) {
	signer := testPeer(1 + n%2)
	groups := protocol.GroupSet(rapid.Uint64Range(0, 7).Draw(t, "groups"))
	d.add(t, signer, &protocol.Keep{Job: d.job.ID, Groups: groups, Sequence: protocol.Sequence{Counter: uint64(n)}})
	keep := d.all[len(d.all)-1]
	d.keeps = append(d.keeps, keep)
	if rapid.IntRange(0, 3).Draw(t, "unkeep") == 0 {
		d.add(t, signer, &protocol.Unkeep{Job: d.job.ID, Keep: keep.Hash, Groups: groups & 3})
	}
}

// ref draws a stage, under a key of one of the roots that its source may get.
func (d *drawn) ref(t *rapid.T) (protocol.StageRef, uint64) {
	m := &d.job.Manifest
	i := 0
	if rapid.IntRange(0, 2).Draw(t, "late stage") == 0 {
		i = rapid.IntRange(0, len(m.Stages)-1).Draw(t, "stage")
	}
	var roots []cid.Cid
	if m.Stages[i].Source.Kind == job.SourceOutputs {
		roots = append(roots, rapid.SampledFrom(drawnRoots[:]).Draw(t, "key"))
	}
	return protocol.StageRef{Job: d.job.ID, Stage: protocol.StageIndex(i), Key: d.job.InputKey(protocol.StageIndex(i), roots)}, m.Stages[i].Tasks
}

// task draws a task of n near the ends of blocks; n is more than 0.
func drawTask(t *rapid.T, n uint64, label string) protocol.TaskIndex {
	base := rapid.SampledFrom([]uint64{0, 0, 1020, 2044}).Draw(t, label+" base")
	return protocol.TaskIndex(min(base+rapid.Uint64Range(0, 9).Draw(t, label), n-1))
}

func drawRange(t *rapid.T, n uint64) protocol.Range {
	a, b := drawTask(t, n, "lo"), drawTask(t, n, "hi")
	return protocol.Range{Lo: min(a, b), Hi: max(a, b) + 1}
}

// draw adds one record. A stage without tasks has only seals.
func (d *drawn) draw(t *rapid.T) {
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0:
		d.add(t, insecure.SignAs(testOwner), &protocol.Control{
			Job: d.job.ID, Sequence: rapid.Uint64Range(1, 3).Draw(t, "sequence"),
			Verb: rapid.SampledFrom([]protocol.Verb{3, 4, 5, 5, 5, 5, 5, 1, 2}).Draw(t, "verb"),
		})
		return
	case 1:
		code := rapid.Uint8Range(10, 13).Draw(t, "code")
		d.all = append(d.all, opaque(d.job.ID, code))
		return
	}
	ref, n := d.ref(t)
	signer := testPeer(rapid.IntRange(0, 3).Draw(t, "signer"))
	life := protocol.Life(rapid.SampledFrom([]uint32{0, 0, 0, 0, 1, 2}).Draw(t, "life"))
	epoch := protocol.Epoch(rapid.Uint64Range(1, 3).Draw(t, "epoch"))
	keep := rapid.SampledFrom(d.keeps).Draw(t, "keep")
	what := rapid.SampledFrom([]protocol.Kind{
		protocol.KindSegment, protocol.KindSegment, protocol.KindDone, protocol.KindDone, protocol.KindFailed,
		protocol.KindFailed, protocol.KindCheckpoint, protocol.KindSeal, protocol.KindSeal, protocol.KindReopen,
	}).Draw(t, "kind")
	if n == 0 || what == protocol.KindSeal {
		d.seal(t, ref, n, life, keep)
		return
	}
	switch what {
	case protocol.KindSegment:
		d.segment(t, protocol.Segment{StageRef: ref, Life: life, Range: drawRange(t, n), Epoch: epoch}, signer, keep)
	case protocol.KindDone:
		d.done(t, ref, n, life, signer)
	case protocol.KindFailed:
		d.add(t, signer, &protocol.Failed{
			StageRef: ref, Life: life, Task: drawTask(t, n, "task"),
			Generation: protocol.Generation(rapid.Uint64Range(0, 3).Draw(t, "generation")),
			Attempt:    protocol.Attempt(rapid.Uint32Range(1, 3).Draw(t, "attempt")),
			Reason:     protocol.ReasonExit, Exit: int32(rapid.IntRange(1, 2).Draw(t, "exit")),
		})
	case protocol.KindCheckpoint:
		d.add(t, signer, &protocol.Checkpoint{
			StageRef: ref, Life: life, Task: drawTask(t, n, "task"), Epoch: epoch,
			Sequence: rapid.Uint64Range(0, 2).Draw(t, "sequence"), State: testCID(cid.Raw, "state"),
		})
	case protocol.KindReopen:
		d.add(t, testPeerOf(keep.Signer), &protocol.Reopen{
			StageRef: ref, Range: drawRange(t, n), Life: life + 1, Cause: protocol.ReopenLost, Keep: keep.Hash,
		})
	}
}

func (d *drawn) segment(t *rapid.T, s protocol.Segment, signer insecure.Signer, keep *protocol.Record) {
	s.Cause = protocol.Cause(rapid.Uint8Range(1, 4).Draw(t, "cause"))
	switch s.Cause {
	case protocol.CauseGrant:
		s.Replaced, s.Holder = signer.ID(), testPeer(4).ID()
	case protocol.CauseRelease:
		s.Replaced = signer.ID()
	case protocol.CauseReleaseFor:
		s.Replaced, s.Keep, signer = testPeer(4).ID(), keep.Hash, testPeerOf(keep.Signer)
	case protocol.CauseAdopt:
		s.Holder = signer.ID()
	}
	d.add(t, signer, &s)
}

// done adds a Done with receipts of two Keeps' signers, as far as they differ.
func (d *drawn) done(t *rapid.T, ref protocol.StageRef, n uint64, life protocol.Life, signer insecure.Signer) {
	r := drawRange(t, n)
	b := &protocol.Done{
		StageRef: ref, Life: life, Range: r.Intersect(r.Lo.Block().Range(n)),
		Page: testCID(cid.Raw, fmt.Sprint("page", rapid.IntRange(0, 2).Draw(t, "page"))),
	}
	for _, keep := range d.keeps[:min(2, len(d.keeps))] {
		rc, err := protocol.SignReceipt(testPeerOf(keep.Signer), protocol.Receipt{StageRef: ref, Life: life, Range: b.Range, Page: b.Page, Keep: keep.Hash})
		if err != nil {
			t.Fatal(err)
		}
		b.Receipts = append(b.Receipts, rc)
	}
	d.add(t, signer, b)
}

func (d *drawn) seal(t *rapid.T, ref protocol.StageRef, n uint64, life protocol.Life, keep *protocol.Record) {
	shape := job.SealShape(n)
	level := rapid.IntRange(0, len(shape)-1).Draw(t, "level")
	d.add(t, testPeerOf(keep.Signer), &protocol.Seal{
		StageRef: ref, Life: life, Level: uint8(level), Number: rapid.Uint64Range(0, shape[level]-1).Draw(t, "number"),
		Root: rapid.SampledFrom(drawnRoots[:]).Draw(t, "root"), Time: 1 + rapid.Int64Range(0, 1).Draw(t, "time"), Keep: keep.Hash,
	})
}

// opaque is a record of a kind that this version does not know.
func opaque(id protocol.JobID, code uint8) *protocol.Record {
	raw := []byte{code}
	return &protocol.Record{Raw: raw, Hash: sha256.Sum256(raw), Signer: testPeer(5).ID(), Body: &protocol.Opaque{Job: id, Code: protocol.Kind(code)}}
}

func testPeerOf(id protocol.PeerID) insecure.Signer { return insecure.SignAs(id) }
