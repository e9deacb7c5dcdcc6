package job

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
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

// maxDepth bounds the nesting of a block: block, manifest, stages, stage, source,
// outputs are the deepest.
const maxDepth = 16

// encMode writes DAG-CBOR: definite lengths, shortest numbers, keys by length and then
// by byte, no nulls but those of optional links. decMode refuses what is none, and what
// a block has beside its fields; laxMode does not mind the latter.
var encMode, decMode, laxMode = sync.OnceValue(func() cbor.EncMode {
	return must(cbor.EncOptions{Sort: cbor.SortLengthFirst, NilContainers: cbor.NilContainerAsEmpty, IndefLength: cbor.IndefLengthForbidden}.EncMode())
}), sync.OnceValue(func() cbor.DecMode {
	return decoder(cbor.ExtraDecErrorUnknownField)
}), sync.OnceValue(func() cbor.DecMode {
	return decoder(cbor.ExtraDecErrorNone)
})

func decoder(extra cbor.ExtraDecErrorCond) cbor.DecMode {
	return must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: maxDepth,
		MaxArrayElements: MaxBlock, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		ExtraReturnErrors: extra,
	}.DecMode())
}

// must is for options that are constant.
func must[T any](v T, err error) T {
	if err != nil {
		panic("job: codec: " + err.Error())
	}
	return v
}

// wireType is one kind of block, which W holds; schema.ipldsch has its name.
type wireType[W any] struct {
	name  string
	limit int
}

// encode gives the canonical bytes of w.
func (t wireType[W]) encode(w *W) ([]byte, error) {
	data, err := encMode().Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("job: encode %s: %w", t.name, err)
	}
	if len(data) > t.limit {
		return nil, fmt.Errorf("job: encode %s: %d bytes, at most %d: %w", t.name, len(data), t.limit, ErrTooLarge)
	}
	return data, nil
}

// decode is encode's strict inverse: what would not encode to the same bytes is refused.
func (t wireType[W]) decode(data []byte) (*W, error) {
	if len(data) > t.limit {
		return nil, fmt.Errorf("job: %s: %d bytes, at most %d: %w", t.name, len(data), t.limit, ErrTooLarge)
	}
	w := new(W)
	if err := decMode().Unmarshal(data, w); err != nil {
		return nil, fmt.Errorf("job: %s: %w: %w", t.name, ErrMalformed, err)
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

// oneOf tells what is wrong with a union of which these are set.
func oneOf(set ...bool) error {
	n := 0
	for _, is := range set {
		if is {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("of what may stand there %d are, not one", n)
	}
	return nil
}

// wireLink is a CID as DAG-CBOR has it: tag 42 around a string of bytes, the first of
// which is 0.
type wireLink cid.Cid

// linkHead is the tag and the head of a string of 24 to 255 bytes, and the 0.
var linkHead = []byte{0xd8, 42, 0x58}

func (l wireLink) MarshalCBOR() ([]byte, error) {
	n := cid.Cid(l).ByteLen() + 1
	if n < 24 || n > 255 {
		return nil, fmt.Errorf("a link of %d bytes", n-1)
	}
	b := make([]byte, 0, len(linkHead)+1+n)
	b = append(append(b, linkHead...), byte(n), 0)
	return append(b, cid.Cid(l).KeyString()...), nil
}

func (l *wireLink) UnmarshalCBOR(data []byte) error {
	rest, ok := bytes.CutPrefix(data, linkHead)
	if !ok || len(rest) < 2 || int(rest[0]) != len(rest)-1 || rest[1] != 0 {
		return errors.New("no link")
	}
	c, err := cid.Cast(rest[2:])
	if err != nil {
		return err
	}
	*l = wireLink(c)
	return nil
}

func wireLinks(list []cid.Cid) []wireLink {
	out := make([]wireLink, len(list))
	for i, c := range list {
		out[i] = wireLink(c)
	}
	return out
}

func cidsOf(list []wireLink) []cid.Cid {
	out := make([]cid.Cid, len(list))
	for i, l := range list {
		out[i] = cid.Cid(l)
	}
	return out
}

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
func optional(c cid.Cid) *wireLink {
	if !c.Defined() {
		return nil
	}
	return (*wireLink)(&c)
}

// fromOptional is optional's inverse.
func fromOptional(l *wireLink) cid.Cid {
	if l == nil {
		return cid.Undef
	}
	return cid.Cid(*l)
}
