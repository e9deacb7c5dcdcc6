package job

import (
	"fmt"
	"iter"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

type wireNode struct {
	Children []wireLink `cbor:"children"`
}

var nodeType = wireType[wireNode]{"Node", MaxBlock}

// EncodeNode makes the block of a node.
func EncodeNode(n Node) (Block, error) {
	if err := n.check(); err != nil {
		return Block{}, fmt.Errorf("job: node: %w", err)
	}
	data, err := nodeType.encode(&wireNode{Children: wireLinks(n.Children)})
	if err != nil {
		return Block{}, err
	}
	return cborBlock(data)
}

// DecodeNode reads a node from anybody.
func DecodeNode(data []byte) (Node, error) {
	w, err := nodeType.decode(data)
	if err != nil {
		return Node{}, err
	}
	n := Node{Children: cidsOf(w.Children)}
	if err := n.check(); err != nil {
		return Node{}, malformed("node", err)
	}
	return n, nil
}

func (n *Node) check() error {
	if len(n.Children) == 0 || len(n.Children) > protocol.BlockSize {
		return fmt.Errorf("it has %d children, must have 1 to %d", len(n.Children), protocol.BlockSize)
	}
	for _, c := range n.Children {
		if err := checkLink(c, codecDagCBOR); err != nil {
			return err
		}
	}
	return nil
}

// SealShape is the number of seals of each level, from level 0 to the top, of a stage
// of n tasks. A stage of 0 tasks has one seal, over an empty leaf. The last is 1.
func SealShape(n uint64) []uint64 {
	shape := []uint64{max(1, protocol.Blocks(n))}
	for shape[len(shape)-1] > 1 {
		shape = append(shape, protocol.Blocks(shape[len(shape)-1]))
	}
	return shape
}

// TopLevel is the level of the top seal of a stage of n tasks: the lowest at which one
// seal covers the whole stage.
func TopLevel(n uint64) int { return len(SealShape(n)) - 1 }

// Results reads the results of a sealed stage as they are asked for, from its top
// seal's root, keeping the last node of each level, leaf and pack. It is for one
// goroutine at a time.
type Results struct {
	root  cid.Cid
	n     uint64
	get   Getter
	shape []uint64
	nodes []cached[uint64, []cid.Cid] // by level
	leaf  cached[protocol.Block, sealedLeaf]
	pack  cached[cid.Cid, []byte]
}

type sealedLeaf struct {
	Leaf
	places [][]Place
	chunks []cid.Cid // the leaf and what is its own
}

// ReadResults reads the results of a stage of n tasks; root is what its top seal names.
// Nothing is fetched yet. Roots come from other peers: what get returns is checked in
// form and shape.
func ReadResults(root cid.Cid, n uint64, get Getter) *Results {
	shape := SealShape(n)
	return &Results{root: root, n: n, get: get, shape: shape, nodes: make([]cached[uint64, []cid.Cid], len(shape))}
}

// Leaf is the results of a block of tasks, without the bytes of inline outputs. It must
// not be changed.
func (r *Results) Leaf(b protocol.Block) (Leaf, error) {
	leaf, err := r.load(b)
	return leaf.Leaf, err
}

// Result is how a task ended: small outputs with their bytes, larger ones with their
// roots, no log and no times.
func (r *Results) Result(i protocol.TaskIndex) (protocol.Result, error) {
	if uint64(i) >= r.n {
		return protocol.Result{}, fmt.Errorf("job: results %s: task %d: there are %d", r.root, i, r.n)
	}
	leaf, err := r.load(i.Block())
	if err != nil {
		return protocol.Result{}, err
	}
	at := int(i % protocol.BlockSize)
	entry, places := leaf.Entries[at], leaf.places[at]
	result := protocol.Result{Exit: entry.Exit}
	if result.Stdout, err = r.output(&leaf, entry.Stdout, places[0]); err != nil {
		return protocol.Result{}, err
	}
	for k, f := range entry.Files {
		out, err := r.output(&leaf, f.LeafOutput, places[1+k])
		if err != nil {
			return protocol.Result{}, err
		}
		result.Files = append(result.Files, protocol.File{Name: f.Name, Output: out})
	}
	return result, nil
}

// All gives the results of a range of tasks in order; it ends with the first error.
func (r *Results) All(tasks protocol.Range) iter.Seq2[protocol.Result, error] {
	return func(yield func(protocol.Result, error) bool) {
		for i := tasks.Lo; i < tasks.Hi; i++ {
			result, err := r.Result(i)
			if !yield(result, err) || err != nil {
				return
			}
		}
	}
}

// Chunks is the CIDs of the chunks that hold the results of a block of tasks: the leaf,
// its parts and packs, and the nodes above whose first block it is, parents first.
// Outputs that are files of their own are in Leaf(b).Outputs().
func (r *Results) Chunks(b protocol.Block) ([]cid.Cid, error) {
	leaf, err := r.load(b)
	if err != nil {
		return nil, err
	}
	var chunks []cid.Cid
	below := uint64(1) // blocks under a seal of the level
	for level := 1; level < len(r.shape); level++ {
		below *= protocol.BlockSize
		if uint64(b)%below != 0 {
			break
		}
		c, err := r.seal(level, uint64(b)/below)
		if err != nil {
			return nil, err
		}
		chunks = append([]cid.Cid{c}, chunks...)
	}
	return append(chunks, leaf.chunks...), nil
}

func (r *Results) load(b protocol.Block) (sealedLeaf, error) {
	if r.leaf.ok && r.leaf.key == b {
		return r.leaf.value, nil
	}
	root, err := r.seal(0, uint64(b))
	if err != nil {
		return sealedLeaf{}, fmt.Errorf("job: results %s: block %d: %w", r.root, b, err)
	}
	leaf, err := ReadLeaf(root, r.get)
	if err != nil {
		return sealedLeaf{}, fmt.Errorf("job: results %s: block %d: %w", r.root, b, err)
	}
	if want := b.Range(r.n).Len(); uint64(len(leaf.Entries)) != want {
		return sealedLeaf{}, malformed("leaf", fmt.Errorf("%s has %d entries, must have %d", root, len(leaf.Entries), want))
	}
	full := sealedLeaf{Leaf: leaf, places: leaf.Places(), chunks: append([]cid.Cid{root}, leaf.Chunks()...)}
	r.leaf = cached[protocol.Block, sealedLeaf]{b, full, true}
	return full, nil
}

// seal is the root of a seal, found from the top.
func (r *Results) seal(level int, number uint64) (cid.Cid, error) {
	if number >= r.shape[level] {
		return cid.Undef, fmt.Errorf("seal %d of level %d: there are %d", number, level, r.shape[level])
	}
	if level == len(r.shape)-1 {
		return r.root, nil
	}
	above := number / protocol.BlockSize
	node := &r.nodes[level+1]
	if !node.ok || node.key != above {
		c, err := r.seal(level+1, above)
		if err != nil {
			return cid.Undef, err
		}
		data, err := r.get(c)
		if err != nil {
			return cid.Undef, err
		}
		read, err := DecodeNode(data)
		if err != nil {
			return cid.Undef, err
		}
		if want := protocol.Block(above).Range(r.shape[level]).Len(); uint64(len(read.Children)) != want {
			return cid.Undef, malformed("node", fmt.Errorf("%s has %d children, must have %d", c, len(read.Children), want))
		}
		*node = cached[uint64, []cid.Cid]{above, read.Children, true}
	}
	return node.value[number%protocol.BlockSize], nil
}

// output gives an output, with its bytes where it is in a pack.
func (r *Results) output(leaf *sealedLeaf, o LeafOutput, at Place) (protocol.Output, error) {
	out := protocol.Output{Root: o.Root, Size: o.Size}
	if o.Root.Defined() || o.Size == 0 {
		return out, nil
	}
	link := leaf.Packs[at.Pack]
	if !r.pack.ok || r.pack.key != link {
		data, err := r.get(link)
		if err != nil {
			return out, fmt.Errorf("job: results %s: pack: %w", r.root, err)
		}
		r.pack = cached[cid.Cid, []byte]{link, data, true}
	}
	if end := at.Offset + int(o.Size); end > len(r.pack.value) {
		return out, malformed("pack", fmt.Errorf("%s has %d bytes, the leaf reads up to %d", link, len(r.pack.value), end))
	}
	out.Inline = append([]byte(nil), r.pack.value[at.Offset:at.Offset+int(o.Size)]...)
	return out, nil
}
