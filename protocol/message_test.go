package protocol_test

import (
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/pb"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func TestMessagesComeBackAsSent(t *testing.T) {
	for kind := range protocoltest.MessageKinds() {
		t.Run(fmt.Sprint(kind+1), rapid.MakeCheck(func(t *rapid.T) {
			want := protocoltest.MessageOf(t, kind)
			b, err := protocol.EncodeMessage(want)
			require.NoError(t, err)
			got, err := protocol.DecodeMessage(b)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}))
	}
}

// The envelope of a message is written by hand: it is what wire.proto says.
func TestMessagesAreThoseOfTheSchema(t *testing.T) {
	fields := (&pb.SwarmMessage{}).ProtoReflect().Descriptor().Fields()
	require.Equal(t, fields.Len(), protocoltest.MessageKinds())
	for kind := range protocoltest.MessageKinds() {
		m := rapid.Custom(func(t *rapid.T) protocol.Message { return protocoltest.MessageOf(t, kind) }).Example(1)
		b, err := protocol.EncodeMessage(m)
		require.NoError(t, err)
		var w pb.SwarmMessage
		require.NoError(t, proto.Unmarshal(b, &w))
		set := w.ProtoReflect().WhichOneof(w.ProtoReflect().Descriptor().Oneofs().Get(0))
		require.EqualValues(t, kind+1, set.Number())
		require.Equal(t, fmt.Sprintf("*protocol.%s", set.Message().Name()), fmt.Sprintf("%T", m))
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&w)
		require.NoError(t, err)
		require.Equal(t, b, again)
	}
}

func TestMessagesOfLaterVersionsAreUnknown(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":     {},
		"a new kind":  protowire.AppendBytes(protowire.AppendTag(nil, protowire.Number(protocoltest.MessageKinds()+1), protowire.BytesType), []byte("?")),
		"a new shape": protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 7),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := protocol.DecodeMessage(b)
			require.ErrorIs(t, err, protocol.ErrUnknownMessage)
		})
	}
	known, err := protocol.EncodeMessage(&protocol.WorkRequest{Job: job})
	require.NoError(t, err)
	m, err := protocol.DecodeMessage(append(known, protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 7)...))
	require.NoError(t, err)
	require.Equal(t, &protocol.WorkRequest{Job: job}, m)
}

func TestTwoMessagesInAFrameAreNone(t *testing.T) {
	b, err := protocol.EncodeMessage(&protocol.WorkRequest{Job: job})
	require.NoError(t, err)
	_, err = protocol.DecodeMessage(append(b, b...))
	require.ErrorIs(t, err, protocol.ErrEncoding)
}

// One bad record refuses all of them, and the error says which it was.
func TestABadRecordIsNamed(t *testing.T) {
	good, err := protocol.SignRecord(me, &protocol.Keep{Job: job})
	require.NoError(t, err)
	bad := good
	bad.Raw = append([]byte(nil), good.Raw...)
	bad.Raw[len(bad.Raw)-1] ^= 1
	b, err := protocol.EncodeMessage(&protocol.News{Job: job, Records: []protocol.Record{good, bad, good}})
	require.NoError(t, err)
	_, err = protocol.DecodeMessage(b)
	require.ErrorIs(t, err, protocol.ErrSignature)
	require.ErrorContains(t, err, "record 1")
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	elsewhere := protocol.JobIDOf(protocoltest.CID(cid.DagCBOR, "another job"))
	keep, err := protocol.SignRecord(me, &protocol.Keep{Job: elsewhere})
	require.NoError(t, err)
	adoption, err := protocol.SignRecord(me, &protocol.Segment{StageRef: ref, Range: tasks, Epoch: 1, Holder: me.ID(), Cause: protocol.CauseAdopt})
	require.NoError(t, err)
	stranger := ref
	stranger.Job = elsewhere
	hint := protocol.Hint{Holder: me.ID(), Stage: ref}
	large := make([]protocol.Record, protocol.MaxNews/len(adoption.Raw)+1)
	for i := range large {
		large[i] = adoption
	}
	for name, m := range map[string]protocol.Message{
		"news of another job":       &protocol.News{Job: job, Records: []protocol.Record{keep}},
		"news over MaxNews":         &protocol.News{Job: job, Records: large},
		"news unsigned":             &protocol.News{Job: job, Records: []protocol.Record{{}}},
		"digest of no job":          &protocol.Digest{},
		"answer in no state":        &protocol.WorkAnswer{Job: job},
		"answer in no known state":  &protocol.WorkAnswer{Job: job, State: 5},
		"answer with many hints":    &protocol.WorkAnswer{Job: job, State: 1, Hints: make([]protocol.Hint, protocol.MaxHints+1)},
		"answer with many ranges":   &protocol.WorkAnswer{Job: job, State: 1, Open: make([]protocol.Open, protocol.MaxOpen+1)},
		"answer with no range":      &protocol.WorkAnswer{Job: job, State: 1, Open: []protocol.Open{{Stage: ref}}},
		"hint of nobody":            &protocol.Refusal{Job: job, Hints: []protocol.Hint{{Stage: ref}}},
		"hint for another job":      &protocol.Refusal{Job: elsewhere, Hints: []protocol.Hint{hint}},
		"bid for another job":       &protocol.Bid{Job: job, Stage: stranger},
		"bid for no stage":          &protocol.Bid{Job: job},
		"bid past counting":         &protocol.Bid{Job: job, Stage: ref, ID: protocol.Sequence{Incarnation: protocol.MaxCount + 1}},
		"grant of nothing":          &protocol.Grant{Job: job},
		"grant that is an adoption": &protocol.Grant{Job: job, Segments: []protocol.Record{adoption}},
		"grant of many":             &protocol.Grant{Job: job, Segments: large[:protocol.MaxGrant+1]},
		"beat of many stages":       &protocol.Beat{Job: job, Work: make([]protocol.Work, protocol.MaxStages+1)},
		"beat of many tasks":        &protocol.Beat{Job: job, Work: []protocol.Work{{Stage: ref, Running: make([]protocol.TaskIndex, protocol.MaxRunning+1)}}},
		"beat of many ranges":       &protocol.Beat{Job: job, Work: []protocol.Work{{Stage: ref, Held: make([]protocol.Held, protocol.MaxHeld+1)}}},
		"beat of an absurd task":    &protocol.Beat{Job: job, Work: []protocol.Work{{Stage: ref, Running: []protocol.TaskIndex{protocol.MaxTasks}}}},
		"answer with a novel":       &protocol.KeepAnswer{Job: job, Reason: string(make([]byte, protocol.MaxDetail+1))},
		"request for no page":       &protocol.ReceiptRequest{StageRef: ref, Range: tasks},
		"request for a large page":  &protocol.ReceiptRequest{StageRef: ref, Range: tasks, Page: chunk, Bytes: make([]byte, protocol.MaxPage+1)},
		"receipt for another page":  &protocol.ReceiptAnswer{Job: job, Page: protocoltest.CID(cid.Raw, "y"), Receipt: func() *protocol.SignedReceipt { r := receipt(t, other, nil); return &r }()},
		"many pages":                &protocol.Stored{Job: job, Pages: make([]cid.Cid, protocol.MaxStored+1)},
		"suspect nobody":            &protocol.Suspect{Job: job},
		"opinion on nobody":         &protocol.Opinion{Job: job, Member: "x"},
		"nothing":                   nil,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := protocol.EncodeMessage(m)
			require.Error(t, err)
			if m == nil || name == "hint for another job" || name == "bid for another job" {
				return // the encoding has no room for them: the job stands in it once
			}
			b := protocol.EncodeUnchecked(m)
			_, err = protocol.DecodeMessage(b)
			require.Error(t, err)
			require.NotErrorIs(t, err, protocol.ErrUnknownMessage)
		})
	}
}

// The limits of a message's parts fit into the limit of the whole.
func TestTheFullestMessagesFit(t *testing.T) {
	hint := protocol.Hint{Holder: me.ID(), Stage: protocol.StageRef{Job: job, Stage: protocol.MaxStages - 1, Key: hash},
		Backlog: ^uint64(0), Rate: ^protocol.Rate(0), Age: ^uint32(0),
		Sequence: protocol.Sequence{Incarnation: protocol.MaxCount, Counter: protocol.MaxCount}}
	last := protocol.Range{Lo: protocol.MaxTasks - 1, Hi: protocol.MaxTasks}
	work := protocol.Work{Stage: hint.Stage, Backlog: ^uint64(0), Rate: ^protocol.Rate(0)}
	for range protocol.MaxRunning {
		work.Running = append(work.Running, protocol.MaxTasks-1)
	}
	for range protocol.MaxHeld {
		work.Held = append(work.Held, protocol.Held{Life: protocol.MaxLife, Range: last, Epoch: protocol.MaxEpoch})
	}
	answer := &protocol.WorkAnswer{Job: job, Members: ^uint32(0), State: protocol.JobDone}
	for range protocol.MaxHints {
		answer.Hints = append(answer.Hints, hint)
	}
	for range protocol.MaxOpen {
		answer.Open = append(answer.Open, protocol.Open{Stage: hint.Stage, Life: protocol.MaxLife, Range: last, Epoch: protocol.MaxEpoch})
	}
	beat := &protocol.Beat{Job: job, Sequence: hint.Sequence}
	for range protocol.MaxStages {
		beat.Work = append(beat.Work, work)
	}
	pages := &protocol.Stored{Job: job}
	for range protocol.MaxStored {
		pages.Pages = append(pages.Pages, chunk)
	}
	smallest, err := protocol.SignRecord(me, &protocol.Keep{Job: job})
	require.NoError(t, err)
	news := &protocol.News{Job: job}
	for range protocol.MaxNews / len(smallest.Raw) {
		news.Records = append(news.Records, smallest)
	}
	request := &protocol.ReceiptRequest{StageRef: hint.Stage, Life: protocol.MaxLife, Range: last, Page: chunk, Bytes: make([]byte, protocol.MaxPage)}
	for _, m := range []protocol.Message{answer, beat, pages, news, request,
		&protocol.Refusal{Job: job, Bid: hint.Sequence, Hints: answer.Hints}} {
		b, err := protocol.EncodeMessage(m)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), protocol.MaxMessage)
		got, err := protocol.Codec{Verifier: protocol.NewSeen(nil, 10)}.DecodeMessage(b)
		require.NoError(t, err)
		require.IsType(t, m, got)
	}
}

// Every kind of message fits into a frame, and one over its limit is not looked into.
func TestLimitsOfMessages(t *testing.T) {
	for kind := protowire.Number(1); int(kind) <= protocoltest.MessageKinds(); kind++ {
		limit := protocol.MessageLimit(kind)
		require.Less(t, limit+8, protocol.MaxMessage, "kind %d", kind)
		b := protowire.AppendBytes(protowire.AppendTag(nil, kind, protowire.BytesType), make([]byte, limit+1))
		_, err := protocol.DecodeMessage(b)
		require.ErrorIs(t, err, protocol.ErrSize, "kind %d", kind)
	}
	_, err := protocol.DecodeMessage(make([]byte, protocol.MaxMessage+1))
	require.ErrorIs(t, err, protocol.ErrSize)
}
