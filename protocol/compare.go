package protocol

import (
	"slices"

	"github.com/compute-mesh/mesh/protocol/pb"
)

// ShortHashSize is the length, in bytes, of a ShortHash.
const ShortHashSize = 16

// ShortHash is the first half of a Hash: enough to tell apart what two keepers that mean
// well have. Who grinds for two records with one hides the second of them from exchange,
// and could have kept it to himself.
type ShortHash [ShortHashSize]byte

// Short is the first half of h.
func (h Hash) Short() ShortHash { return ShortHash(h[:ShortHashSize]) }

// Compare goes down the tree of the visible state with another keeper of the job, from
// where digests differ to the records that one of the two lacks. SPEC.md section 9 has
// the flow, section 7 the tree.
type Compare struct {
	Job   JobID
	Parts []Part // at most MaxParts, with at most MaxCompareHashes hashes in all
}

// PartKind says which part of the visible state a Part is about. The numbers are on the
// wire: never changed.
type PartKind uint8

const (
	PartJob    PartKind = 1 // hashes: of the common part, then of the head and the tree of each stage
	PartCommon PartKind = 2 // control, Keeps and Unkeeps, opaque records; hashes: of records
	PartHead   PartKind = 3 // the seals of a stage above level 0; hashes: of records
	PartNode   PartKind = 4 // tasks of a stage; hashes: of the node's children or, at level 0, of records
)

// Part is a part of the visible state: with Give unset what the sender has in it, with
// Give set the records that it wants.
type Part struct {
	Kind   PartKind
	Stage  StageRef // of a head or a node
	Level  uint8    // of a node: it covers BlockSize^(Level+1) tasks
	Number uint64
	Hashes []ShortHash // at most MaxPartHashes
	Give   bool
}

func (*Compare) message() {}

func (c *check) compare(m *Compare) {
	c.that(len(m.Parts) <= MaxParts, "too many parts")
	n := 0
	for i := range m.Parts {
		p := &m.Parts[i]
		n += len(p.Hashes)
		c.that(p.Kind >= PartJob && p.Kind <= PartNode, "a part of an unknown kind")
		c.that(len(p.Hashes) <= MaxPartHashes, "too many hashes of a part")
		if p.Kind == PartHead || p.Kind == PartNode {
			c.part(m.Job, p.Stage)
		} else {
			c.that(p.Stage == StageRef{}, "a stage of a part that has none")
		}
		c.that(p.Kind == PartNode && p.Level <= MaxLevel && p.Number < MaxTasks/BlockSize || p.Level == 0 && p.Number == 0, "no such node")
	}
	c.that(n <= MaxCompareHashes, "too many hashes")
}

func compareToWire(m *Compare) *pb.Compare {
	w := &pb.Compare{Job: []byte(m.Job)}
	for i := range m.Parts {
		p := &m.Parts[i]
		part := &pb.Part{Kind: uint32(p.Kind), Level: uint32(p.Level), Number: p.Number, Give: p.Give}
		if p.Stage.Job != "" {
			part.Stage = stageToWire(p.Stage)
		}
		part.Hashes = make([]byte, 0, len(p.Hashes)*ShortHashSize)
		for _, h := range p.Hashes {
			part.Hashes = append(part.Hashes, h[:]...)
		}
		w.Parts = append(w.Parts, part)
	}
	return w
}

func compareFromWire(r *reading, b []byte) *Compare {
	var w pb.Compare
	r.message(b, &w)
	m := &Compare{Job: JobID(w.Job)}
	for _, part := range w.Parts {
		p := Part{Kind: PartKind(r.small(part.Kind)), Level: r.small(part.Level), Number: part.Number, Give: part.Give}
		if part.Stage != nil {
			p.Stage = r.stageOf(m.Job, part.Stage)
		}
		if len(part.Hashes)%ShortHashSize != 0 {
			r.fail("compare: a hash cut short", ErrEncoding)
		}
		for h := range slices.Chunk(part.Hashes, ShortHashSize) {
			if len(h) == ShortHashSize {
				p.Hashes = append(p.Hashes, ShortHash(h))
			}
		}
		m.Parts = append(m.Parts, p)
	}
	return m
}
