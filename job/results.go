package job

import (
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Leaf is what a level-0 seal's root names: the results of a block of tasks and
// nothing of who ran them, so that equal results have equal roots.
// Inline outputs stand one after another, in task order, in packs: raw chunks of at
// most MaxPack bytes, none of them cut by a chunk's end.
type Leaf struct {
	Entries []LeafEntry
	Packs   []cid.Cid
	Parts   []Part // where the entries are, if they are too large for the leaf's block
}

// LeafEntry is the result of one task.
type LeafEntry struct {
	Exit   int32
	Stdout LeafOutput
	Files  []LeafFile
}

// LeafOutput is an output: a file of its own, or the next Size bytes of the packs.
type LeafOutput struct {
	Root cid.Cid // cid.Undef: in the packs
	Size uint64
}

// LeafFile is a file of /out/.
type LeafFile struct {
	Name string
	LeafOutput
}

// Node is what a seal of a level above 0 names: the roots of up to
// protocol.BlockSize seals of the level below, in order.
type Node struct{ Children []cid.Cid }

// Block is an encoded chunk and its CID.
type Block struct {
	CID  cid.Cid
	Data []byte
}

// MaxPack bounds a pack: a chunk.
const MaxPack = 1 << 20

// LeafOf builds the leaf of consecutive results with its packs; the leaf is the first
// block returned. It is deterministic.
func LeafOf(results []protocol.Result) ([]Block, error) { return leafOf(results) }
