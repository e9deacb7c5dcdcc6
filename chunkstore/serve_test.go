package chunkstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multihash"
)

// rawStream is a stream of the protocol that a test writes to by hand.
func rawStream(t *testing.T, from, to *mesher) network.Stream {
	t.Helper()
	s := must(from.host.NewStream(t.Context(), to.host.ID(), ProtocolID))(t)
	t.Cleanup(func() { s.Reset() })
	if err := s.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnswersComeInOrder(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	small := fill(t, a.store, 1, 3, 1000)
	large := fill(t, a.store, 2, 1, MaxChunk)[0]
	missing := cidOf(cid.Raw, key{1})
	unknown := cid.NewCidV1(cid.Raw, must(multihash.Sum([]byte("x"), multihash.SHA1, -1))(t))
	inline := cid.NewCidV1(cid.Raw, must(multihash.Encode([]byte("in the name"), multihash.IDENTITY))(t))
	ask := []cid.Cid{small[0], missing, large, small[1], unknown, inline, small[0], small[2], large}
	s := rawStream(t, me, a)
	var b []byte
	for _, c := range ask {
		b = appendRequest(b, c)
	}
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(s)
	for i, c := range ask {
		want := statusOK
		if c.Equals(missing) || c.Equals(unknown) {
			want = statusNotFound
		}
		status, size, err := readAnswer(in)
		if err != nil || status != want {
			t.Fatalf("answer %d: status %d, %v", i, status, err)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(in, data); err != nil {
			t.Fatal(err)
		}
		if _, err := check(c, data); want == statusOK && err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
}

// TestServerEndsMalformedStreams: no request that cannot be read is answered, and others go on being served.
func TestServerEndsMalformedStreams(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	c := fill(t, a.store, 1, 1, 10)[0]
	for name, request := range map[string][]byte{
		"empty":        {0},
		"oversize":     append(binary.AppendUvarint(nil, maxCID+1), make([]byte, maxCID+1)...),
		"huge":         binary.AppendUvarint(nil, 1<<62),
		"not a varint": bytes.Repeat([]byte{0xff}, 12),
		"not a CID":    append([]byte{36}, make([]byte, 36)...),
		"cut":          appendRequest(nil, c)[:10],
		"trailing":     append([]byte{byte(c.ByteLen() + 1)}, append(c.Bytes(), 0)...),
	} {
		s := rawStream(t, me, a)
		_, _ = s.Write(request) // the stream may be ended before all is written
		_ = s.CloseWrite()
		if n, err := io.Copy(io.Discard, s); n != 0 {
			t.Errorf("%s: %d bytes of answer, %v", name, n, err)
		}
	}
	s := rawStream(t, me, a)
	if _, err := s.Write(appendRequest(nil, c)); err != nil {
		t.Fatal(err)
	}
	if status, size, err := readAnswer(bufio.NewReader(s)); status != statusOK || size != 10 || err != nil {
		t.Errorf("a good request after the bad ones: %d, %d, %v", status, size, err)
	}
}

// TestServerGivesUpOnIdleAskers: one that takes nothing, and one that asks nothing.
func TestServerGivesUpOnIdleAskers(t *testing.T) {
	a, me := newMesher(t, noBitswap, func(c *ExchangeConfig) { c.ServeIdle = time.Second }), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	c := fill(t, a.store, 1, 1, MaxChunk)[0]
	silent, greedy := rawStream(t, me, a), rawStream(t, me, a)
	if _, err := silent.Write(appendRequest(nil, cidOf(cid.Raw, key{}))); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for range 64 {
		b = appendRequest(b, c)
	}
	if _, err := greedy.Write(b); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	served := false
	for n := 0; !served || n > 0; n = a.Stats().Serving {
		served = served || n > 0
		if time.Now().After(deadline) {
			t.Fatalf("still serving %d", n)
		}
		<-time.After(10 * time.Millisecond)
	}
}
