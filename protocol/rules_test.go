package protocol_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
)

var (
	me    = protocoltest.Signer(1)
	other = protocoltest.Signer(2)
	job   = protocol.JobIDOf(protocoltest.CID(cid.DagCBOR, "job"))
	chunk = protocoltest.CID(cid.Raw, "chunk")
	hash  = protocol.Hash{1}
	ref   = protocol.StageRef{Job: job, Stage: 1, Key: hash}
	tasks = protocol.Range{Lo: 5, Hi: 9}
)

func receipt(t *testing.T, s protocol.Signer, change func(*protocol.Receipt)) protocol.SignedReceipt {
	r := protocol.Receipt{StageRef: ref, Life: 2, Range: tasks, Page: chunk, Keep: hash}
	if change != nil {
		change(&r)
	}
	signed, err := protocol.SignReceipt(s, r)
	require.NoError(t, err)
	return signed
}

// broken has, for each rule, a body that breaks it alone.
func broken(t *testing.T) map[string]protocol.Body {
	all := map[string]protocol.Body{}
	for _, some := range []map[string]protocol.Body{brokenOrders(), brokenSegments(), brokenDone(t), brokenOthers()} {
		maps.Copy(all, some)
	}
	return all
}

func brokenOrders() map[string]protocol.Body {
	return map[string]protocol.Body{
		"control without verb":     &protocol.Control{Job: job, Sequence: 1},
		"control of no known verb": &protocol.Control{Job: job, Sequence: 1, Verb: 6},
		"control without number":   &protocol.Control{Job: job, Verb: protocol.VerbPause},
		"control past counting":    &protocol.Control{Job: job, Sequence: protocol.MaxCount + 1, Verb: protocol.VerbPause},
		"keep of no job":           &protocol.Keep{},
		"keep of a CIDv0":          &protocol.Keep{Job: protocol.JobID(chunk.Hash())},
		"keep of another codec":    &protocol.Keep{Job: protocol.JobIDOf(protocoltest.CID(cid.GitRaw, "x"))},
		"keep past counting":       &protocol.Keep{Job: job, Sequence: protocol.Sequence{Counter: protocol.MaxCount + 1}},
		"unkeep of nothing":        &protocol.Unkeep{Job: job},
	}
}

func brokenSegments() map[string]protocol.Body {
	segment := func(change func(*protocol.Segment)) protocol.Body {
		s := &protocol.Segment{StageRef: ref, Range: tasks, Epoch: 3, Holder: other.ID(), Cause: protocol.CauseGrant, Replaced: me.ID()}
		change(s)
		return s
	}
	return map[string]protocol.Body{
		"segment of no tasks":          segment(func(s *protocol.Segment) { s.Range.Hi = s.Range.Lo }),
		"segment backwards":            segment(func(s *protocol.Segment) { s.Range.Hi = s.Range.Lo - 1 }),
		"segment past the stage":       segment(func(s *protocol.Segment) { s.Range.Hi = protocol.MaxTasks + 1 }),
		"segment past the stages":      segment(func(s *protocol.Segment) { s.Stage = protocol.MaxStages }),
		"segment without key":          segment(func(s *protocol.Segment) { s.Key = protocol.Hash{} }),
		"segment of an absurd epoch":   segment(func(s *protocol.Segment) { s.Epoch = protocol.MaxEpoch + 1 }),
		"segment of an absurd life":    segment(func(s *protocol.Segment) { s.Life = protocol.MaxLife + 1 }),
		"segment without cause":        segment(func(s *protocol.Segment) { s.Cause = 0 }),
		"segment of no known cause":    segment(func(s *protocol.Segment) { s.Cause = 5 }),
		"grant at epoch 0":             segment(func(s *protocol.Segment) { s.Epoch = 0 }),
		"grant to nobody":              segment(func(s *protocol.Segment) { s.Holder = "" }),
		"grant to a strange key":       segment(func(s *protocol.Segment) { s.Holder = "Qm" }),
		"grant to oneself":             segment(func(s *protocol.Segment) { s.Holder = me.ID() }),
		"grant of another's":           segment(func(s *protocol.Segment) { s.Replaced = protocoltest.Signer(3).ID() }),
		"grant of nobody's":            segment(func(s *protocol.Segment) { s.Replaced = "" }),
		"grant with a keep":            segment(func(s *protocol.Segment) { s.Keep = hash }),
		"release of another's":         segment(func(s *protocol.Segment) { s.Cause, s.Holder, s.Replaced = protocol.CauseRelease, "", other.ID() }),
		"release to somebody":          segment(func(s *protocol.Segment) { s.Cause = protocol.CauseRelease }),
		"release for another, no keep": segment(func(s *protocol.Segment) { s.Cause, s.Holder = protocol.CauseReleaseFor, "" }),
		"release for nobody": segment(func(s *protocol.Segment) {
			s.Cause, s.Holder, s.Replaced, s.Keep = protocol.CauseReleaseFor, "", "", hash
		}),
		"release for another to somebody": segment(func(s *protocol.Segment) { s.Cause, s.Keep = protocol.CauseReleaseFor, hash }),
		"adoption for another":            segment(func(s *protocol.Segment) { s.Cause, s.Replaced = protocol.CauseAdopt, "" }),
		"adoption of a held range":        segment(func(s *protocol.Segment) { s.Cause, s.Holder = protocol.CauseAdopt, me.ID() }),
	}
}

func brokenDone(t *testing.T) map[string]protocol.Body {
	done := func(receipts ...protocol.SignedReceipt) protocol.Body {
		return &protocol.Done{StageRef: ref, Life: 2, Range: tasks, Page: chunk, Receipts: receipts}
	}
	return map[string]protocol.Body{
		"done without receipt":        done(),
		"done with one receipt twice": done(receipt(t, other, nil), receipt(t, other, func(r *protocol.Receipt) { r.Keep[1] = 1 })),
		"done with five receipts": done(receipt(t, other, nil), receipt(t, protocoltest.Signer(3), nil),
			receipt(t, protocoltest.Signer(4), nil), receipt(t, protocoltest.Signer(5), nil), receipt(t, protocoltest.Signer(6), nil)),
		"done with a receipt for another page":  done(receipt(t, other, func(r *protocol.Receipt) { r.Page = protocoltest.CID(cid.Raw, "y") })),
		"done with a receipt for another life":  done(receipt(t, other, func(r *protocol.Receipt) { r.Life++ })),
		"done with a receipt for another range": done(receipt(t, other, func(r *protocol.Receipt) { r.Range.Hi++ })),
		"done with a receipt for another stage": done(receipt(t, other, func(r *protocol.Receipt) { r.Stage++ })),
		"done with a receipt for another key":   done(receipt(t, other, func(r *protocol.Receipt) { r.Key[3]++ })),
		"done with an unsigned receipt":         done(protocol.SignedReceipt{Signer: other.ID(), Receipt: receipt(t, other, nil).Receipt}),
		"done over a block's end": &protocol.Done{StageRef: ref, Range: protocol.Range{Lo: 1023, Hi: 1025}, Page: chunk,
			Receipts: []protocol.SignedReceipt{receipt(t, other, nil)}},
		"done without page": &protocol.Done{StageRef: ref, Range: tasks, Receipts: []protocol.SignedReceipt{receipt(t, other, nil)}},
	}
}

func brokenOthers() map[string]protocol.Body {
	failed := func(change func(*protocol.Failed)) protocol.Body {
		f := &protocol.Failed{StageRef: ref, Task: 1, Attempt: 1, Reason: protocol.ReasonTrap}
		change(f)
		return f
	}
	seal := func(change func(*protocol.Seal)) protocol.Body {
		s := &protocol.Seal{StageRef: ref, Root: chunk, Time: 1, Keep: hash}
		change(s)
		return s
	}
	reopen := func(change func(*protocol.Reopen)) protocol.Body {
		r := &protocol.Reopen{StageRef: ref, Range: tasks, Life: 1, Cause: protocol.ReopenLost, Keep: hash}
		change(r)
		return r
	}
	return map[string]protocol.Body{
		"failed before it tried":         failed(func(f *protocol.Failed) { f.Attempt = 0 }),
		"failed too often":               failed(func(f *protocol.Failed) { f.Attempt = protocol.MaxAttempt + 1 }),
		"failed for no reason":           failed(func(f *protocol.Failed) { f.Reason = 0 }),
		"failed for no known reason":     failed(func(f *protocol.Failed) { f.Reason = protocol.ReasonHang + 1 }),
		"suspected, and counted":         failed(func(f *protocol.Failed) { f.Reason = protocol.ReasonSuspect }),
		"failed past the stage":          failed(func(f *protocol.Failed) { f.Task = protocol.MaxTasks }),
		"failed with a novel":            failed(func(f *protocol.Failed) { f.Detail = strings.Repeat("x", protocol.MaxDetail+1) }),
		"failed with bytes for a text":   failed(func(f *protocol.Failed) { f.Detail = "\xff" }),
		"checkpoint of nothing":          &protocol.Checkpoint{StageRef: ref, Task: 1},
		"checkpoint after nothing sound": &protocol.Checkpoint{StageRef: ref, Task: 1, State: chunk, Earlier: cid.NewCidV0(chunk.Hash())},
		"checkpoint of an absurd epoch":  &protocol.Checkpoint{StageRef: ref, Task: 1, Epoch: protocol.MaxEpoch + 1, State: chunk},
		"seal of nothing":                seal(func(s *protocol.Seal) { s.Root = cid.Undef }),
		"seal past the levels":           seal(func(s *protocol.Seal) { s.Level = protocol.MaxLevel + 1 }),
		"seal past the stage":            seal(func(s *protocol.Seal) { s.Number = protocol.MaxTasks / protocol.BlockSize }),
		"second top of a stage":          seal(func(s *protocol.Seal) { s.Level, s.Number = 2, 1 }),
		"seal at no time":                seal(func(s *protocol.Seal) { s.Time = 0 }),
		"seal by no keeper":              seal(func(s *protocol.Seal) { s.Keep = protocol.Hash{} }),
		"reopen into life 0":             reopen(func(r *protocol.Reopen) { r.Life = 0 }),
		"reopen without cause":           reopen(func(r *protocol.Reopen) { r.Cause = 0 }),
		"reopen by no keeper":            reopen(func(r *protocol.Reopen) { r.Keep = protocol.Hash{} }),
		"reopen of nothing":              reopen(func(r *protocol.Reopen) { r.Range = protocol.Range{} }),
	}
}

func TestBrokenRulesAreRefusedBeforeSigning(t *testing.T) {
	for name, body := range broken(t) {
		t.Run(name, func(t *testing.T) {
			_, err := protocol.SignRecord(me, body)
			require.ErrorIs(t, err, protocol.ErrInvalid)
		})
	}
}

// The same bodies, signed by a peer that does not check, are refused by who opens them.
func TestBrokenRulesAreRefusedOnArrival(t *testing.T) {
	for name, body := range broken(t) {
		t.Run(name, func(t *testing.T) {
			raw, err := protocol.SignUnchecked(me, body)
			if err != nil {
				require.Contains(t, err.Error(), "UTF-8", "the one fault that has no bytes")
				return
			}
			_, err = protocol.OpenRecord(raw)
			require.Error(t, err)
		})
	}
}

// Who signs decides whether a segment is valid.
func TestSegmentsAreSignedByWhoMay(t *testing.T) {
	segment := protocol.Segment{StageRef: ref, Range: tasks, Epoch: 3, Holder: other.ID(), Cause: protocol.CauseGrant, Replaced: me.ID()}
	_, err := protocol.SignRecord(me, &segment)
	require.NoError(t, err)
	_, err = protocol.SignRecord(other, &segment)
	require.ErrorIs(t, err, protocol.ErrInvalid)

	adoption := protocol.Segment{StageRef: ref, Range: tasks, Epoch: 1, Holder: me.ID(), Cause: protocol.CauseAdopt}
	_, err = protocol.SignRecord(me, &adoption)
	require.NoError(t, err)
	_, err = protocol.SignRecord(other, &adoption)
	require.ErrorIs(t, err, protocol.ErrInvalid)
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "a/b", "...", ".hidden", "a b", "é", "..a/b..", strings.Repeat("x", 255)} {
		require.NoError(t, protocol.ValidName(name), "%q", name)
	}
	for _, name := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\\b", "a\x00", "a\nb", "\x1b[0m",
		"a\u0085", "\xff", "\x7f", strings.Repeat("x", 256), strings.Repeat("x/", 600) + "x"} {
		require.Error(t, protocol.ValidName(name), "%q", name)
	}
	for _, mesh := range []string{"default", "a", "0", "lab-2.example_x", strings.Repeat("x", 63)} {
		require.NoError(t, protocol.ValidMesh(mesh), "%q", mesh)
	}
	for _, mesh := range []string{"", "-a", ".a", "a/b", "a b", "é", strings.Repeat("x", 64)} {
		require.ErrorIs(t, protocol.ValidMesh(mesh), protocol.ErrInvalid, "%q", mesh)
	}
}

func TestProtocolIDs(t *testing.T) {
	require.EqualValues(t, "/mesh/default/swarm/1.0.0", protocol.Swarm("default"))
	require.EqualValues(t, "/mesh/default/query/1.0.0", protocol.Query("default"))
	require.EqualValues(t, "/mesh/default/jobs/1.0.0", protocol.Topic("default"))
}
