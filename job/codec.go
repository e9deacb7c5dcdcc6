package job

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/bindnode"
	"github.com/ipld/go-ipld-prime/schema"
	schemadmt "github.com/ipld/go-ipld-prime/schema/dmt"
	schemadsl "github.com/ipld/go-ipld-prime/schema/dsl"
	"github.com/multiformats/go-multihash"
)

// MaxBlock bounds every block of this package but a manifest's: it is a chunk.
const MaxBlock = 1 << 20

// What is wrong with bytes that are no block of this package.
var (
	// ErrTooLarge: more bytes than the kind of block may have. Nothing was decoded.
	ErrTooLarge = errors.New("too large")
	// ErrMalformed: not DAG-CBOR in its canonical form, or not of the block's shape.
	ErrMalformed = errors.New("malformed")
)

// Codecs of CIDs: multicodec numbers.
const (
	codecRaw     = cid.Raw
	codecDagPB   = cid.DagProtobuf
	codecDagCBOR = cid.DagCBOR
)

//go:embed schema.ipldsch
var schemaText []byte

// wireTypes is the schema's type system, parsed once.
var wireTypes = sync.OnceValue(func() *schema.TypeSystem {
	dmt, err := schemadsl.ParseBytes(schemaText)
	if err != nil {
		panic("job: embedded schema: " + err.Error())
	}
	ts := new(schema.TypeSystem)
	ts.Init()
	if err := schemadmt.Compile(ts, dmt); err != nil {
		panic("job: embedded schema: " + err.Error())
	}
	return ts
})

// wireType is one kind of block: the schema's type and the Go struct W that holds it.
type wireType[W any] struct {
	name  string
	limit int
	proto func() schema.TypedPrototype
}

func newWireType[W any](name string, limit int) wireType[W] {
	return wireType[W]{name, limit, sync.OnceValue(func() schema.TypedPrototype {
		return bindnode.Prototype((*W)(nil), wireTypes().TypeByName(name))
	})}
}

// encode gives the canonical bytes of w.
func (t wireType[W]) encode(w *W) ([]byte, error) {
	var b bytes.Buffer
	node := bindnode.Wrap(w, t.proto().Type()).Representation()
	options := dagcbor.EncodeOptions{AllowLinks: true, MapSortMode: codec.MapSortMode_RFC7049}
	if err := options.Encode(node, &b); err != nil {
		return nil, fmt.Errorf("job: encode %s: %w", t.name, err)
	}
	if b.Len() > t.limit {
		return nil, fmt.Errorf("job: encode %s: %d bytes, at most %d: %w", t.name, b.Len(), t.limit, ErrTooLarge)
	}
	return b.Bytes(), nil
}

// decode is encode's strict inverse: what would not encode to the same bytes is refused.
func (t wireType[W]) decode(data []byte) (*W, error) {
	if len(data) > t.limit {
		return nil, fmt.Errorf("job: %s: %d bytes, at most %d: %w", t.name, len(data), t.limit, ErrTooLarge)
	}
	builder := t.proto().Representation().NewBuilder()
	options := dagcbor.DecodeOptions{AllowLinks: true, MaxDepth: maxDepth}
	if err := options.Decode(builder, bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("job: %s: %w: %w", t.name, ErrMalformed, err)
	}
	w, ok := bindnode.Unwrap(builder.Build()).(*W)
	if !ok {
		return nil, fmt.Errorf("job: %s: %w", t.name, ErrMalformed)
	}
	again, err := t.encode(w)
	if err != nil {
		return nil, fmt.Errorf("job: %s: %w: %w", t.name, ErrMalformed, err)
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("job: %s: %w: not the canonical encoding", t.name, ErrMalformed)
	}
	return w, nil
}

// maxDepth bounds the nesting of a block: block, manifest, stages, stage, source,
// outputs are the deepest.
const maxDepth = 16

// cidOf names data, encoded with the codec, as every chunk of the mesh is named.
func cidOf(codec uint64, data []byte) (cid.Cid, error) {
	hash, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		return cid.Undef, fmt.Errorf("job: hash: %w", err)
	}
	return cid.NewCidV1(codec, hash), nil
}

// cborBlock makes the block of DAG-CBOR bytes.
func cborBlock(data []byte) (Block, error) {
	c, err := cidOf(codecDagCBOR, data)
	return Block{CID: c, Data: data}, err
}

// checkLink tells what is wrong with a link that is to be a CIDv1 with a sha2-256
// digest and one of the codecs.
func checkLink(c cid.Cid, codecs ...uint64) error {
	if !c.Defined() {
		return errors.New("no CID")
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != multihash.SHA2_256 || p.MhLength != 32 {
		return fmt.Errorf("CID %s is not a CIDv1 with sha2-256", c)
	}
	for _, codec := range codecs {
		if p.Codec == codec {
			return nil
		}
	}
	return fmt.Errorf("CID %s has codec 0x%x, which is not one that may stand here", c, p.Codec)
}

func malformed(what string, err error) error {
	return fmt.Errorf("job: %s: %w: %w", what, ErrMalformed, err)
}

// optional is the wire form of a link that may be missing.
func optional(c cid.Cid) *cid.Cid {
	if !c.Defined() {
		return nil
	}
	return &c
}

// fromOptional is optional's inverse.
func fromOptional(c *cid.Cid) cid.Cid {
	if c == nil {
		return cid.Undef
	}
	return *c
}
