package job

import (
	"errors"
	"fmt"
	"iter"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Index reads an input index as it is asked for, keeping the last block and node. It
// is for one goroutine at a time.
type Index struct {
	root  cid.Cid
	get   Getter
	wire  *wireIndex
	node  cached[uint64, []cid.Cid]
	block cached[protocol.Block, indexBlock]
}

// cached is the last thing read, with its number.
type cached[K comparable, V any] struct {
	key   K
	value V
	ok    bool
}

type indexBlock struct {
	entries []Entry
	chunks  []cid.Cid // the block and its parts
}

// ReadIndex opens the index with that root, which is all that it fetches. Roots come
// from other peers' manifests: what get returns is checked in form and shape.
func ReadIndex(root cid.Cid, get Getter) (*Index, error) {
	data, err := get(root)
	if err != nil {
		return nil, fmt.Errorf("job: index %s: %w", root, err)
	}
	w, err := decodeIndex(data)
	if err != nil {
		return nil, fmt.Errorf("job: index %s: %w", root, err)
	}
	return &Index{root: root, get: get, wire: w}, nil
}

func decodeIndex(data []byte) (*wireIndex, error) {
	w, err := indexType.decode(data)
	if err != nil {
		return nil, err
	}
	if w.Count < 0 || w.Count > protocol.MaxTasks || w.Bytes < 0 {
		return nil, malformed("index", errors.New("a number is out of range"))
	}
	children := protocol.Blocks(uint64(w.Count))
	if children > protocol.BlockSize {
		children = protocol.Blocks(children)
	}
	if uint64(len(w.Children)) != children {
		return nil, malformed("index", fmt.Errorf("it has %d children, must have %d", len(w.Children), children))
	}
	for _, c := range w.Children {
		if err := checkLink(cid.Cid(c), codecDagCBOR); err != nil {
			return nil, malformed("index", err)
		}
	}
	return w, nil
}

// decodeIndexBlock gives a block's entries, or its parts.
func decodeIndexBlock(data []byte) ([]Entry, []Part, error) {
	w, err := indexBlockType.decode(data)
	if err != nil {
		return nil, nil, err
	}
	if err := oneOf(w.Entries != nil, w.Parts != nil); err != nil {
		return nil, nil, malformed("index block", err)
	}
	if w.Parts != nil {
		parts, err := checkParts(*w.Parts, protocol.BlockSize)
		if err != nil {
			return nil, nil, malformed("index block", err)
		}
		return nil, parts, nil
	}
	if len(*w.Entries) == 0 || len(*w.Entries) > protocol.BlockSize {
		return nil, nil, malformed("index block", fmt.Errorf("it has %d entries, must have 1 to %d", len(*w.Entries), protocol.BlockSize))
	}
	entries := make([]Entry, len(*w.Entries))
	for i, e := range *w.Entries {
		if e.Size < 0 {
			return nil, nil, malformed("index block", errors.New("a size is negative"))
		}
		entries[i] = Entry{Root: fromOptional(e.Root), Size: uint64(e.Size), Name: e.Name, Line: e.Line}
		if err := entries[i].check(); err != nil {
			return nil, nil, malformed("index block", err)
		}
	}
	return entries, nil, nil
}

// Input is what the index says of itself; a manifest's Source must say the same.
func (x *Index) Input() Input {
	return Input{Root: x.root, Count: uint64(x.wire.Count), Bytes: uint64(x.wire.Bytes)}
}

// Entry is the entry of a task.
func (x *Index) Entry(i protocol.TaskIndex) (Entry, error) {
	if uint64(i) >= uint64(x.wire.Count) {
		return Entry{}, fmt.Errorf("job: index %s: entry %d: it has %d", x.root, i, x.wire.Count)
	}
	entries, err := x.Block(i.Block())
	if err != nil {
		return Entry{}, err
	}
	return entries[i%protocol.BlockSize], nil
}

// Block is the entries of a block of tasks. They must not be changed.
func (x *Index) Block(b protocol.Block) ([]Entry, error) {
	block, err := x.load(b)
	return block.entries, err
}

// Chunks is the CIDs of the index's own chunks on the way to the entries of a block: its
// root, the node above the block where there is one, the block and its parts.
func (x *Index) Chunks(b protocol.Block) ([]cid.Cid, error) {
	block, err := x.load(b)
	if err != nil {
		return nil, err
	}
	chunks := []cid.Cid{x.root}
	if x.nodes() {
		chunks = append(chunks, cid.Cid(x.wire.Children[b/protocol.BlockSize]))
	}
	return append(chunks, block.chunks...), nil
}

// All gives the entries of a range of tasks in order; it ends with the first error.
func (x *Index) All(r protocol.Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i := r.Lo; i < r.Hi; i++ {
			e, err := x.Entry(i)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// nodes tells whether there is a level of nodes between root and blocks.
func (x *Index) nodes() bool {
	return protocol.Blocks(uint64(x.wire.Count)) > protocol.BlockSize
}

func (x *Index) load(b protocol.Block) (indexBlock, error) {
	if x.block.ok && x.block.key == b {
		return x.block.value, nil
	}
	if uint64(b) >= protocol.Blocks(uint64(x.wire.Count)) {
		return indexBlock{}, fmt.Errorf("job: index %s: block %d: it has none", x.root, b)
	}
	block, err := x.fetch(b)
	if err != nil {
		return indexBlock{}, fmt.Errorf("job: index %s: block %d: %w", x.root, b, err)
	}
	x.block = cached[protocol.Block, indexBlock]{b, block, true}
	return block, nil
}

func (x *Index) fetch(b protocol.Block) (indexBlock, error) {
	link, err := x.link(b)
	if err != nil {
		return indexBlock{}, err
	}
	data, err := x.get(link)
	if err != nil {
		return indexBlock{}, err
	}
	entries, parts, err := decodeIndexBlock(data)
	if err != nil {
		return indexBlock{}, err
	}
	block := indexBlock{entries: entries, chunks: []cid.Cid{link}}
	for _, p := range parts {
		if data, err = x.get(p.Link); err != nil {
			return indexBlock{}, err
		}
		more, deeper, err := decodeIndexBlock(data)
		if err != nil {
			return indexBlock{}, err
		}
		if deeper != nil || len(more) != p.Count {
			return indexBlock{}, malformed("index part", fmt.Errorf("it has not %d entries", p.Count))
		}
		block.entries = append(block.entries, more...)
		block.chunks = append(block.chunks, p.Link)
	}
	if want := b.Range(uint64(x.wire.Count)).Len(); uint64(len(block.entries)) != want {
		return indexBlock{}, malformed("index block", fmt.Errorf("it has %d entries, must have %d", len(block.entries), want))
	}
	return block, nil
}

// link finds the block's CID, by the node above it where there is one.
func (x *Index) link(b protocol.Block) (cid.Cid, error) {
	if !x.nodes() {
		return cid.Cid(x.wire.Children[b]), nil
	}
	number := uint64(b) / protocol.BlockSize
	if !x.node.ok || x.node.key != number {
		data, err := x.get(cid.Cid(x.wire.Children[number]))
		if err != nil {
			return cid.Undef, err
		}
		node, err := DecodeNode(data)
		if err != nil {
			return cid.Undef, err
		}
		want := protocol.Block(number).Range(protocol.Blocks(uint64(x.wire.Count))).Len()
		if uint64(len(node.Children)) != want {
			return cid.Undef, malformed("index node", fmt.Errorf("it has %d children, must have %d", len(node.Children), want))
		}
		x.node = cached[uint64, []cid.Cid]{number, node.Children, true}
	}
	return x.node.value[uint64(b)%protocol.BlockSize], nil
}
