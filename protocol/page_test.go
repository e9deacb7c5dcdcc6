package protocol_test

import (
	"bytes"
	"crypto/sha256"
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

// Pages are written by hand: what is written is what wire.proto says.
func TestPagesComeBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := protocoltest.Page(t)
		c, b, err := protocol.EncodePage(want)
		require.NoError(t, err)
		got, err := protocol.DecodePage(c, b)
		require.NoError(t, err)
		require.Equal(t, want, got)

		var w pb.Page
		require.NoError(t, proto.Unmarshal(b, &w))
		require.Len(t, w.Results, len(want.Results))
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&w)
		require.NoError(t, err)
		require.Equal(t, b, again)
		sum := sha256.Sum256(b)
		require.Equal(t, append([]byte{1, 0x55, 0x12, 0x20}, sum[:]...), c.Bytes())
	})
}

func page(n int) protocol.Page {
	p := protocol.Page{StageRef: ref, Range: protocol.Range{Hi: protocol.TaskIndex(n)}, Worker: me.ID()}
	for range n {
		p.Results = append(p.Results, protocol.Result{Wall: 1500, CPU: 1400,
			Stdout: protocol.Output{Inline: []byte("a line of output\n"), Size: 17}})
	}
	return p
}

func TestPagesOfOtherBytesAreRefused(t *testing.T) {
	c, b, err := protocol.EncodePage(page(3))
	require.NoError(t, err)
	flips(t, b, func(changed []byte) error {
		_, err := protocol.DecodePage(c, changed)
		return err
	})
	_, err = protocol.DecodePage(cid.NewCidV1(cid.DagCBOR, c.Hash()), b)
	require.ErrorIs(t, err, protocol.ErrEncoding, "a page is a raw chunk")
	_, err = protocol.DecodePage(cid.Undef, b)
	require.ErrorIs(t, err, protocol.ErrEncoding)
}

func TestBrokenPagesAreRefused(t *testing.T) {
	long := bytes.Repeat([]byte("x"), protocol.MaxInline+1)
	files := func(n int) (f []protocol.File) {
		for i := range n {
			f = append(f, protocol.File{Name: string([]byte{'a' + byte(i/26), 'a' + byte(i%26)})})
		}
		return f
	}
	for name, change := range map[string]func(*protocol.Page){
		"a result too few":         func(p *protocol.Page) { p.Results = p.Results[:2] },
		"a result too many":        func(p *protocol.Page) { p.Results = append(p.Results, protocol.Result{}) },
		"no tasks":                 func(p *protocol.Page) { p.Range, p.Results = protocol.Range{}, nil },
		"over a block's end":       func(p *protocol.Page) { p.Range = protocol.Range{Lo: 1022, Hi: 1025} },
		"no worker":                func(p *protocol.Page) { p.Worker = "" },
		"no key":                   func(p *protocol.Page) { p.Key = protocol.Hash{} },
		"long inline":              func(p *protocol.Page) { p.Results[1].Log = protocol.Output{Inline: long, Size: uint64(len(long))} },
		"inline of another size":   func(p *protocol.Page) { p.Results[1].Stdout.Size = 3 },
		"inline and a file":        func(p *protocol.Page) { p.Results[1].Stdout.Root = chunk },
		"a file with a bad name":   func(p *protocol.Page) { p.Results[1].Files = []protocol.File{{Name: "../x"}} },
		"a file without a name":    func(p *protocol.Page) { p.Results[1].Files = []protocol.File{{}} },
		"files out of order":       func(p *protocol.Page) { p.Results[1].Files = []protocol.File{{Name: "b"}, {Name: "a"}} },
		"a file twice":             func(p *protocol.Page) { p.Results[1].Files = []protocol.File{{Name: "a"}, {Name: "a"}} },
		"too many files":           func(p *protocol.Page) { p.Results[1].Files = files(protocol.MaxOutFiles + 1) },
		"a root of another format": func(p *protocol.Page) { p.Results[1].Log.Root = protocoltest.CID(cid.GitRaw, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			p := page(3)
			change(&p)
			_, _, err := protocol.EncodePage(p)
			require.Error(t, err)
			if name == "inline and a file" || name == "inline of another size" {
				return // the encoding has no room for them
			}
			b := protocol.EncodePageUnchecked(p)
			_, err = protocol.DecodePage(protocoltest.CID(cid.Raw, string(b)), b)
			require.Error(t, err)
		})
	}
}

// A block of the largest inline outputs takes several pages; one never passes MaxPage.
func TestPagesHaveALimit(t *testing.T) {
	p := page(protocol.BlockSize)
	_, _, err := protocol.EncodePage(p)
	require.NoError(t, err)
	for i := range p.Results {
		p.Results[i].Stdout = protocol.Output{Inline: make([]byte, protocol.MaxInline), Size: protocol.MaxInline}
	}
	_, _, err = protocol.EncodePage(p)
	require.ErrorIs(t, err, protocol.ErrSize)
	b := make([]byte, protocol.MaxPage+1)
	_, err = protocol.DecodePage(protocoltest.CID(cid.Raw, string(b)), b)
	require.ErrorIs(t, err, protocol.ErrSize)
}

// Half a megabyte of empty results is refused at the first that the range has no place for.
func TestAPageCannotMakeItsReaderAllocate(t *testing.T) {
	var b []byte
	b = protowire.AppendVarint(protowire.AppendTag(b, 6, protowire.VarintType), 2)
	for range 500_000 {
		b = protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), nil)
	}
	c := protocoltest.CID(cid.Raw, string(b))
	var err error
	allocs := testing.AllocsPerRun(1, func() { _, err = protocol.DecodePage(c, b) })
	require.ErrorIs(t, err, protocol.ErrSize)
	require.Less(t, allocs, 50.0)
}

func TestPageFieldsStandInOrder(t *testing.T) {
	_, b, err := protocol.EncodePage(page(1))
	require.NoError(t, err)
	for name, raw := range map[string][]byte{
		"life after the worker": append(append([]byte(nil), b...), 4<<3, 1),
		"lo twice":              protowire.AppendVarint(append([]byte{5 << 3, 0, 5 << 3, 0}, b...), 0),
	} {
		_, err := protocol.DecodePage(protocoltest.CID(cid.Raw, string(raw)), raw)
		require.ErrorIs(t, err, protocol.ErrEncoding, name)
	}
	later := protowire.AppendBytes(protowire.AppendTag(append([]byte(nil), b...), 9, protowire.BytesType), []byte("new"))
	_, err = protocol.DecodePage(protocoltest.CID(cid.Raw, string(later)), later)
	require.NoError(t, err, "a field of a later version")
}
