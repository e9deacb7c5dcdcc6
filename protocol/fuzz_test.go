package protocol_test

import (
	"bytes"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// all accepts every signature: a fuzzer cannot make any, and is to get past them.
type all struct{}

func (all) Verify(protocol.PeerID, []byte, []byte) bool { return true }

var trusting = protocol.Codec{Verifier: all{}}

func FuzzRecord(f *testing.F) {
	for _, kind := range protocoltest.Kinds {
		f.Add(sample(f, kind).Raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := trusting.OpenRecord(raw)
		if err != nil {
			return
		}
		require.Equal(t, raw, r.Raw)
		if _, opaque := r.Body.(*protocol.Opaque); opaque {
			return
		}
		// What is valid can be said again, and means the same.
		again, err := protocol.SignRecord(impostor(r.Signer), r.Body)
		require.NoError(t, err)
		back, err := trusting.OpenRecord(again.Raw)
		require.NoError(t, err)
		require.Equal(t, r.Body, back.Body)
	})
}

// impostor signs as any peer, for a Verifier that believes it.
type impostor protocol.PeerID

func (i impostor) ID() protocol.PeerID       { return protocol.PeerID(i) }
func (impostor) Sign([]byte) ([]byte, error) { return make([]byte, 64), nil }

func FuzzReceipt(f *testing.F) {
	r, err := protocol.SignReceipt(insecure.NewSigner(1), rapid.Custom(protocoltest.Receipt).Example(1))
	require.NoError(f, err)
	f.Add(r.Raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := trusting.OpenReceipt(raw)
		if err != nil {
			return
		}
		_, err = protocol.SignReceipt(impostor(r.Signer), r.Receipt)
		require.NoError(t, err)
	})
}

func FuzzAnnouncement(f *testing.F) {
	for n := range 3 {
		f.Add(rapid.Custom(protocoltest.Announcement).Example(n).Raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := trusting.OpenAnnouncement(raw)
		if err != nil {
			return
		}
		again, err := protocol.SignAnnouncement(impostor(a.Signer), a)
		require.NoError(t, err)
		back, err := trusting.OpenAnnouncement(again.Raw)
		require.NoError(t, err)
		back.Raw = a.Raw
		require.Equal(t, a, back)
	})
}

func FuzzMessage(f *testing.F) {
	for kind := range protocoltest.MessageKinds() {
		m := rapid.Custom(func(t *rapid.T) protocol.Message { return protocoltest.MessageOf(t, kind) }).Example(1)
		b, err := protocol.EncodeMessage(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := trusting.DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := protocol.EncodeMessage(m)
		require.NoError(t, err)
		back, err := trusting.DecodeMessage(again)
		require.NoError(t, err)
		require.Equal(t, m, back)
	})
}

func FuzzPage(f *testing.F) {
	for n := range 3 {
		_, b, err := protocol.EncodePage(rapid.Custom(protocoltest.Page).Example(n))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := protocol.DecodePage(protocoltest.CID(cid.Raw, string(b)), b)
		if err != nil {
			return
		}
		c, again, err := protocol.EncodePage(p)
		require.NoError(t, err)
		back, err := protocol.DecodePage(c, again)
		require.NoError(t, err)
		require.Equal(t, normal(p), normal(back))
	})
}

// normal makes an inline output of no bytes the same however it was written.
func normal(p protocol.Page) protocol.Page {
	empty := func(o *protocol.Output) {
		if len(o.Inline) == 0 {
			o.Inline = nil
		}
	}
	for i := range p.Results {
		r := &p.Results[i]
		empty(&r.Stdout)
		empty(&r.Log)
		for j := range r.Files {
			empty(&r.Files[j].Output)
		}
	}
	return p
}

func FuzzFrame(f *testing.F) {
	var stream bytes.Buffer
	for _, n := range []int{0, 1, 200, 5000} {
		require.NoError(f, protocol.WriteFrame(&stream, make([]byte, n)))
	}
	f.Add(stream.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := protocol.NewReader(bytes.NewReader(b), 1<<20)
		defer r.Close()
		var again bytes.Buffer
		for {
			frame, err := r.ReadFrame()
			if err != nil {
				break
			}
			require.NoError(t, protocol.WriteFrame(&again, frame))
		}
		require.True(t, bytes.HasPrefix(b, again.Bytes()), "frames have one encoding")
	})
}
