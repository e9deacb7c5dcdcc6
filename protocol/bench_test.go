package protocol_test

import (
	"bytes"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/stretchr/testify/require"
)

func BenchmarkSignRecord(b *testing.B) {
	body := &protocol.Segment{StageRef: ref, Range: tasks, Epoch: 3, Holder: other.ID(), Cause: protocol.CauseGrant, Replaced: me.ID()}
	b.ReportAllocs()
	for b.Loop() {
		_, err := protocol.SignRecord(me, body)
		require.NoError(b, err)
	}
}

func BenchmarkOpenRecord(b *testing.B) {
	grant := protocol.Segment{StageRef: ref, Range: tasks, Epoch: 3, Holder: other.ID(), Cause: protocol.CauseGrant}
	genuine, cheap := grant, grant
	signer := insecure.NewSigner(1)
	genuine.Replaced, cheap.Replaced = me.ID(), signer.ID()
	signed, err := protocol.SignRecord(me, &genuine)
	require.NoError(b, err)
	checksummed, err := protocol.SignRecord(signer, &cheap)
	require.NoError(b, err)
	for _, c := range []struct {
		name  string
		raw   []byte
		codec protocol.Codec
	}{
		{"ed25519", signed.Raw, protocol.Codec{}},
		{"seen", signed.Raw, protocol.Codec{Verifier: protocol.NewSeen(nil, 100)}},
		{"insecure", checksummed.Raw, protocol.Codec{Verifier: insecure.Verifier{}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := c.codec.OpenRecord(c.raw)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkPage(b *testing.B) {
	p := page(protocol.BlockSize)
	c, raw, err := protocol.EncodePage(p)
	require.NoError(b, err)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			_, _, err := protocol.EncodePage(p)
			require.NoError(b, err)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			_, err := protocol.DecodePage(c, raw)
			require.NoError(b, err)
		}
	})
}

// A page of small results takes a handful of allocations, however many results it has.
func TestPagesCostFewAllocations(t *testing.T) {
	p := page(protocol.BlockSize)
	c, raw, err := protocol.EncodePage(p)
	require.NoError(t, err)
	require.Less(t, testing.AllocsPerRun(10, func() { _, _, _ = protocol.EncodePage(p) }), 20.0)
	require.Less(t, testing.AllocsPerRun(10, func() { _, _ = protocol.DecodePage(c, raw) }), 20.0)
}

func BenchmarkBeat(b *testing.B) {
	work := protocol.Work{Stage: ref, Running: []protocol.TaskIndex{1, 2, 3, 4}, Held: []protocol.Held{{Range: tasks, Epoch: 3}}}
	m := &protocol.Beat{Job: job, Work: []protocol.Work{work}}
	b.ReportAllocs()
	for b.Loop() {
		raw, err := protocol.EncodeMessage(m)
		require.NoError(b, err)
		_, err = protocol.DecodeMessage(raw)
		require.NoError(b, err)
	}
}

// BenchmarkFrame is a frame of 1 KiB, about a bid or a few records, written and read.
func BenchmarkFrame(b *testing.B) {
	var stream bytes.Buffer
	r := protocol.NewReader(&stream, protocol.MaxMessage)
	defer r.Close()
	body := make([]byte, 1<<10)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, protocol.WriteFrame(&stream, body))
		_, err := r.ReadFrame()
		require.NoError(b, err)
	}
}
