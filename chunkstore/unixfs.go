package chunkstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	unixfspb "github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// fanout is the number of links of a DAG node: the default of IPFS importers (boxo's helpers.DefaultLinksPerBlock), on which
// the root of a file depends.
const fanout = 174

// maxDepth bounds the depth of a file DAG that is read: 174^5 chunks of 1 MiB are 160 PiB, and foreign layouts (trickle)
// are deeper but not much.
const maxDepth = 64

// child is a link to a part of a file.
type child struct {
	cid  cid.Cid
	size uint64 // bytes of the file below it
	sum  uint64 // bytes of all blocks below it, itself included: the Tsize of dag-pb
}

// layout builds the balanced DAG over leaves that are given in order. It holds at most fanout links a level, whatever the
// size of the file.
type layout struct {
	put    func(node []byte) (cid.Cid, error)
	levels [][]child // levels[0] are leaves that no node has yet, levels[1] nodes over leaves, ...
}

// add appends a leaf.
func (l *layout) add(leaf child) error { return l.push(0, leaf) }

func (l *layout) push(level int, c child) error {
	if level == len(l.levels) {
		l.levels = append(l.levels, make([]child, 0, fanout))
	}
	if len(l.levels[level]) == fanout {
		// Only now: a full level may be the last one, whose node is then the root.
		if err := l.wrap(level); err != nil {
			return err
		}
	}
	l.levels[level] = append(l.levels[level], c)
	return nil
}

// wrap makes a node of the links of a level and moves it up.
func (l *layout) wrap(level int) error {
	n, err := l.node(l.levels[level])
	if err != nil {
		return err
	}
	l.levels[level] = l.levels[level][:0]
	return l.push(level+1, n)
}

// root finishes the DAG and leaves the layout empty. At least one leaf must have been added.
func (l *layout) root() (child, error) {
	for level := 0; ; level++ {
		if level == len(l.levels)-1 && len(l.levels[level]) == 1 {
			root := l.levels[level][0]
			l.levels = l.levels[:0]
			return root, nil
		}
		if len(l.levels[level]) > 0 {
			if err := l.wrap(level); err != nil {
				return child{}, err
			}
		}
	}
}

// node encodes and stores a node over parts of a file.
func (l *layout) node(parts []child) (child, error) {
	file := unixfs.NewFSNode(unixfspb.Data_File)
	node := merkledag.NodeWithData(nil)
	sum := uint64(0)
	for _, p := range parts {
		file.AddBlockSize(p.size)
		if err := node.AddRawLink("", &ipld.Link{Cid: p.cid, Size: p.sum}); err != nil {
			return child{}, err
		}
		sum += p.sum
	}
	data, err := file.GetBytes()
	if err != nil {
		return child{}, err
	}
	node.SetData(data)
	encoded, err := node.EncodeProtobuf(true)
	if err != nil {
		return child{}, err
	}
	c, err := l.put(encoded)
	return child{cid: c, size: file.FileSize(), sum: sum + uint64(len(encoded))}, err
}

// putNode stores an encoded dag-pb node.
func (s *Store) putNode(ctx context.Context, data []byte) (cid.Cid, error) {
	k, err := s.putBytes(ctx, data)
	if err != nil {
		return cid.Undef, err
	}
	return cidOf(cid.DagProtobuf, k), nil
}

// links are the children of a block: none but of a dag-pb node.
func links(c cid.Cid, block []byte) ([]cid.Cid, error) {
	if c.Type() != cid.DagProtobuf {
		return nil, nil
	}
	node, err := merkledag.DecodeProtobuf(block)
	if err != nil {
		return nil, fmt.Errorf("chunkstore: chunk %s: %w: %v", c, ErrMalformed, err)
	}
	list := make([]cid.Cid, len(node.Links()))
	for i, l := range node.Links() {
		list[i] = l.Cid
	}
	return list, nil
}

// part is a decoded node of a file: its own bytes, then those of its children.
type part struct {
	inline   []byte
	children []child // sum is not set
	size     uint64
}

// decodePart decodes a dag-pb node of a file and checks that its sizes agree with one another.
func decodePart(c cid.Cid, block []byte) (*part, error) {
	malformed := func(why any) error { return fmt.Errorf("chunkstore: chunk %s: %w: %v", c, ErrMalformed, why) }
	node, err := merkledag.DecodeProtobuf(block)
	if err != nil {
		return nil, malformed(err)
	}
	file, err := unixfs.FSNodeFromBytes(node.Data())
	if err != nil {
		return nil, malformed(err)
	}
	if t := file.Type(); t != unixfspb.Data_File && t != unixfspb.Data_Raw {
		return nil, fmt.Errorf("chunkstore: chunk %s: %w but a UnixFS %s", c, ErrNotFile, t)
	}
	sizes := file.BlockSizes()
	if len(sizes) != len(node.Links()) {
		return nil, malformed(fmt.Sprintf("%d sizes for %d links", len(sizes), len(node.Links())))
	}
	p := &part{inline: file.Data(), size: uint64(len(file.Data())), children: make([]child, len(sizes))}
	for i, l := range node.Links() {
		p.children[i] = child{cid: l.Cid, size: sizes[i]}
		if p.size += sizes[i]; sizes[i] > 1<<62 || p.size > 1<<62 {
			return nil, malformed("size overflows")
		}
	}
	if p.size != file.FileSize() {
		return nil, malformed(fmt.Sprintf("says %d bytes, its parts are %d", file.FileSize(), p.size))
	}
	return p, nil
}

// walker visits the blocks of DAGs as far as they are here.
type walker struct {
	s      *Store
	seen   *cid.Set // nodes already walked
	strict bool     // a malformed node is an error, not a leaf
}

// walk calls visit for the root and everything below it, a node before its children, and says whether the block is here.
// It leaves the order of use alone.
func (w *walker) walk(ctx context.Context, root cid.Cid, visit func(c cid.Cid, here bool) error) error {
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	todo := []cid.Cid{root}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		isNode := c.Type() == cid.DagProtobuf
		if isNode && !w.seen.Visit(c) {
			continue
		}
		var block []byte
		here := w.s.Has(c)
		if isNode && here {
			var err error
			block, err = w.s.peek(c, buf[:])
			if here = err == nil; err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		if err := visit(c, here); err != nil {
			return err
		}
		if !isNode || !here {
			continue
		}
		below, err := links(c, block)
		if err != nil && w.strict {
			return err
		}
		for i := len(below) - 1; i >= 0; i-- {
			todo = append(todo, below[i])
		}
	}
	return nil
}

// peek is GetInto that leaves the order of use alone.
func (s *Store) peek(c cid.Cid, buf []byte) ([]byte, error) {
	k, inline, err := keyOf(c)
	if err != nil || inline != nil {
		return inline, err
	}
	return s.read(k, buf)
}

// Chunks lists every block of a DAG, the root first, each once. A node that is not here is an ErrNotFound; leaves need not
// be here. It follows any dag-pb links, directories too.
func (s *Store) Chunks(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	return s.listDAG(ctx, root, func(c cid.Cid, here bool) (bool, error) {
		if !here && c.Type() == cid.DagProtobuf {
			return false, fmt.Errorf("chunkstore: chunk %s: %w", c, ErrNotFound)
		}
		return true, nil
	})
}

// Missing lists the blocks of a DAG that are not here; what lies below a missing node is not known. None means that the
// whole DAG is here.
func (s *Store) Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	return s.listDAG(ctx, root, func(_ cid.Cid, here bool) (bool, error) { return !here, nil })
}

func (s *Store) listDAG(ctx context.Context, root cid.Cid, take func(cid.Cid, bool) (bool, error)) ([]cid.Cid, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if _, _, err := keyOf(root); err != nil {
		return nil, err
	}
	var list []cid.Cid
	listed := cid.NewSet()
	w := walker{s: s, seen: cid.NewSet(), strict: true}
	err := w.walk(ctx, root, func(c cid.Cid, here bool) error {
		ok, err := take(c, here)
		if ok && listed.Visit(c) {
			list = append(list, c)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
