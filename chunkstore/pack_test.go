package chunkstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/s2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestPackedHasRoom(t *testing.T) {
	if need := s2.MaxEncodedLen(packBlock); need > len(packed{}) {
		t.Errorf("S2 may write %d bytes of a block, there is room for %d", need, len(packed{}))
	}
}

func packLocal(c *ExchangeConfig) { c.PackLocal = true }

// mixture is a chunk of text, noise and text: blocks that pack and blocks that do not.
func mixture(size int) []byte {
	text := []byte(strings.Repeat("a line of text, and another one\n", size/32+1))
	b := append([]byte{}, text[:size/3]...)
	b = append(b, randomBytes(7, size/3)...)
	return append(b, text[:size-len(b)]...)
}

// TestFetchPacked moves chunks of all sizes around the limits, of text, noise and both, between peers of either version.
func TestFetchPacked(t *testing.T) {
	for _, old := range []bool{false, true} {
		from, to := newMesher(t, noBitswap, packLocal), newMesher(t, noBitswap)
		connect(t, from.host, to.host)
		if old {
			from.host.RemoveStreamHandler(ProtocolID)
		}
		var list []cid.Cid
		for _, size := range []int{1, packLeast - 1, packLeast, packBlock - 1, packBlock, packBlock + 1, 3 * packBlock, MaxChunk - 1, MaxChunk} {
			for _, data := range [][]byte{[]byte(strings.Repeat("text ", size))[:size], randomBytes(uint64(size), size), mixture(size)} {
				list = append(list, must(from.store.Put(t.Context(), data))(t))
			}
		}
		if err := to.Fetch(t.Context(), list, []peer.ID{from.host.ID()}, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		checkHas(t, to.store, list)
	}
}

// TestPackedIsSmaller: what text takes on the wire.
func TestPackedIsSmaller(t *testing.T) {
	me := newMesher(t, noBitswap, packLocal)
	asker := newHost(t)
	connect(t, asker, me.host)
	text := []byte(strings.Repeat("a line of text, and another one\n", MaxChunk/32))
	c := must(me.store.Put(t.Context(), text))(t)
	s := must(asker.NewStream(t.Context(), me.host.ID(), ProtocolID))(t)
	defer s.Reset()
	must(s.Write(appendRequest(nil, c)))(t)
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer := must(io.ReadAll(s))(t)
	if len(answer) > len(text)/10 {
		t.Errorf("%d bytes for %d", len(answer), len(text))
	}
	r := bufio.NewReader(bytes.NewReader(answer))
	status, size, err := readAnswer(r)
	if err != nil || status != statusPacked || size != len(text) {
		t.Fatal(status, size, err)
	}
	got := make([]byte, size)
	if err := unpack(r, got); err != nil || !bytes.Equal(got, text) {
		t.Error("not what was put", err)
	}
}

// TestPackedLies: blocks that unpack to more, less or nothing are an error of who sent them, and another holder is asked.
func TestPackedLies(t *testing.T) {
	data := []byte(strings.Repeat("text ", 100_000))
	for name, answer := range map[string]func() []byte{
		"a larger block": func() []byte {
			b := s2.Encode(nil, append(data[:packBlock:packBlock], "more"...))
			return append(appendBlock(appendAnswer(nil, statusPacked, len(data)), len(b)), b...)
		},
		"a smaller block": func() []byte {
			b := s2.Encode(nil, data[:100])
			return append(appendBlock(appendAnswer(nil, statusPacked, len(data)), len(b)), b...)
		},
		"a huge claim": func() []byte {
			b := []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}
			return append(appendBlock(appendAnswer(nil, statusPacked, len(data)), len(b)), b...)
		},
		"nonsense": func() []byte {
			b := append([]byte{0x80, 0x80, 0x08}, bytes.Repeat([]byte{0xfe}, 200)...)
			return append(appendBlock(appendAnswer(nil, statusPacked, len(data)), len(b)), b...)
		},
		"a block too long": func() []byte { return appendBlock(appendAnswer(nil, statusPacked, len(data)), packBlock+1) },
		"no data":          func() []byte { return []byte{byte(statusPacked), 0} },
		"other bytes": func() []byte {
			return append(appendBlock(appendAnswer(nil, statusPacked, 5), 0), "bytes"...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			good, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
			liar := evil(t, func(s network.Stream, c cid.Cid) error {
				_, err := s.Write(answer())
				return err
			})
			connect(t, me.host, good.host, liar)
			c := must(good.store.Put(t.Context(), data))(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := me.Fetch(ctx, []cid.Cid{c}, []peer.ID{liar.ID()}, FetchOptions{}); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			if err := me.Fetch(ctx, []cid.Cid{c}, []peer.ID{liar.ID(), good.host.ID()}, FetchOptions{}); err != nil {
				t.Fatal(err)
			}
			checkHas(t, me.store, []cid.Cid{c})
		})
	}
}

// FuzzUnpack: no panic, no more memory than the data takes, whatever the blocks are.
func FuzzUnpack(f *testing.F) {
	b := s2.Encode(nil, []byte(strings.Repeat("text ", 1000)))
	f.Add(append(appendBlock(nil, len(b)), b...), 5000)
	f.Add([]byte{0, 1, 2, 3}, 3)
	f.Fuzz(func(t *testing.T, blocks []byte, size int) {
		if size < 1 || size > MaxChunk {
			return
		}
		_ = unpack(bufio.NewReader(bytes.NewReader(blocks)), make([]byte, size))
	})
}

func BenchmarkPack(b *testing.B) {
	for name, data := range map[string][]byte{"text": mixture(3 * packBlock)[:packBlock], "noise": randomBytes(1, packBlock)} {
		b.Run(name, func(b *testing.B) {
			buf := new(packed)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				pack(buf, data)
			}
		})
	}
}
