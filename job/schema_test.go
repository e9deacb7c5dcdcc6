package job

import (
	"bytes"
	_ "embed"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/bindnode"
	"github.com/ipld/go-ipld-prime/schema"
	schemadmt "github.com/ipld/go-ipld-prime/schema/dmt"
	schemadsl "github.com/ipld/go-ipld-prime/schema/dsl"
)

//go:embed schema.ipldsch
var schemaText []byte

// bySchema tells whether bytes are a block by the schema, in the canonical form, as another implementation of IPLD reads it.
func bySchema(types *schema.TypeSystem, name string, data []byte) error {
	prototype := bindnode.Prototype(nil, types.TypeByName(name)).Representation()
	builder := prototype.NewBuilder()
	if err := (dagcbor.DecodeOptions{AllowLinks: true, MaxDepth: maxDepth}).Decode(builder, bytes.NewReader(data)); err != nil {
		return err
	}
	var again bytes.Buffer
	if err := (dagcbor.EncodeOptions{AllowLinks: true, MapSortMode: codec.MapSortMode_RFC7049}).Encode(builder.Build().(schema.TypedNode).Representation(), &again); err != nil {
		return err
	}
	if !bytes.Equal(again.Bytes(), data) {
		return errors.New("not the canonical encoding")
	}
	return nil
}

// TestSchema holds the codec to schema.ipldsch: what one of them reads the other does, of blocks as they are and with some bytes
// changed, but for what the schema does not say: that strings are UTF-8 and sizes not negative.
func TestSchema(t *testing.T) {
	dmt, err := schemadsl.ParseBytes(schemaText)
	if err != nil {
		t.Fatal(err)
	}
	types := new(schema.TypeSystem)
	types.Init()
	if err := schemadmt.Compile(types, dmt); err != nil {
		t.Fatal(err)
	}
	leaf, err := LeafOf(numbered(3))
	if err != nil {
		t.Fatal(err)
	}
	node, err := EncodeNode(Node{Children: []cid.Cid{leaf[0].CID, leaf[0].CID}})
	if err != nil {
		t.Fatal(err)
	}
	part := []wirePart{{Count: 1, Link: wireLink(leaf[0].CID)}, {Count: 300, Link: wireLink(leaf[0].CID)}}
	parted, err := leafType.encode(&wireLeaf{Results: wireResults{Parts: &part}})
	if err != nil {
		t.Fatal(err)
	}
	var index [][]byte
	root := rawCID(t, "piece")
	writeIndex(t, func(b Block) error { index = append(index, b.Data); return nil }, 3, func(i int) Entry { return entryOf(root, i) })
	type kind struct {
		name   string
		block  []byte
		decode func([]byte) error
	}
	kinds := []kind{
		{"SignedManifest", sign(t, build(t, fullSpec(t))).Raw, func(b []byte) error { _, err := signedType.decode(b); return err }},
		{"SignedManifest", sign(t, build(t, arraySpec(t, 5))).Raw, func(b []byte) error { _, err := signedType.decode(b); return err }},
		{"Leaf", leaf[0].Data, func(b []byte) error { _, err := leafType.decode(b); return err }},
		{"Leaf", parted, func(b []byte) error { _, err := leafType.decode(b); return err }},
		{"Node", node.Data, func(b []byte) error { _, err := nodeType.decode(b); return err }},
		{"IndexBlock", index[0], func(b []byte) error { _, err := indexBlockType.decode(b); return err }},
		{"Index", index[len(index)-1], func(b []byte) error { _, err := indexType.decode(b); return err }},
	}
	draw := rand.New(rand.NewPCG(1, 2))
	tries := 3000
	if testing.Short() {
		tries = 300
	}
	read := 0
	for _, k := range kinds {
		if err := errors.Join(k.decode(k.block), bySchema(types, k.name, k.block)); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		for range tries {
			data := bytes.Clone(k.block)
			for range 1 + draw.IntN(2) {
				switch i := draw.IntN(len(data)); draw.IntN(3) {
				case 0:
					data[i] = byte(draw.Uint32())
				case 1:
					data[i] ^= 1 << draw.IntN(8)
				default:
					data = append(data[:i:i], data[min(i+1+draw.IntN(3), len(data)):]...)
				}
			}
			ours, theirs := k.decode(data), bySchema(types, k.name, data)
			var text *cbor.SemanticError // a string that is no UTF-8
			var negative *cbor.UnmarshalTypeError
			if ours == nil && theirs != nil || ours != nil && theirs == nil && !errors.As(ours, &text) && !errors.As(ours, &negative) {
				t.Fatalf("%s %x: %v, by the schema %v", k.name, data, ours, theirs)
			}
			if ours == nil {
				read++
			}
		}
	}
	if read < tries/10 {
		t.Errorf("%d of the changed blocks could be read", read)
	}
}
