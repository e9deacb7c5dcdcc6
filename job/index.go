package job

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// MaxLine bounds a line of --args-from: a task's arguments are not a way to ship data.
const MaxLine = 32 << 10

type wireIndex struct {
	Count    int64      `cbor:"count"`
	Bytes    int64      `cbor:"bytes"`
	Children []wireLink `cbor:"children"`
}

// wireIndexBlock is a union: one of the pointers is set.
type wireIndexBlock struct {
	Entries *[]wireEntry `cbor:"entries,omitempty"`
	Parts   *[]wirePart  `cbor:"parts,omitempty"`
}

type wireEntry struct {
	_    struct{} `cbor:",toarray"`
	Root *wireLink
	Size int64
	Name string
	Line string
}

var (
	indexType      = wireType[wireIndex]{"Index", MaxBlock}
	indexBlockType = wireType[wireIndexBlock]{"IndexBlock", MaxBlock}
)

// IndexWriter builds an input index from its entries, in bounded memory (one part of
// a block, and 41 bytes for every 1,024 entries of the last 2^20). Equal entries give
// an equal index. A writer that has failed is of no more use.
type IndexWriter struct {
	put    func(Block) error
	count  uint64
	bytes  uint64
	block  parter[wireEntry]
	blocks []cid.Cid // not yet under a node
	nodes  []cid.Cid
}

// NewIndexWriter writes the index's chunks with put, each after those it links to.
func NewIndexWriter(put func(Block) error) *IndexWriter {
	return &IndexWriter{put: put, block: parter[wireEntry]{put: put, encode: encodeEntries}}
}

// Add appends the entry of the next task.
func (w *IndexWriter) Add(e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("job: index: entry %d: %w", w.count, err)
	}
	if w.count == protocol.MaxTasks {
		return fmt.Errorf("job: index: more than %d entries: make the pieces larger", protocol.MaxTasks)
	}
	if w.bytes+e.Size > math.MaxInt64 {
		return fmt.Errorf("job: index: entry %d: the pieces have more than 2^63 bytes: %w", w.count, ErrTooLarge)
	}
	wire := wireEntry{Root: optional(e.Root), Size: int64(e.Size), Name: e.Name, Line: e.Line}
	if err := w.block.add(wire, itemWeight+len(e.Name)+len(e.Line)); err != nil {
		return err
	}
	w.count++
	w.bytes += e.Size
	if w.count%protocol.BlockSize == 0 {
		return w.endBlock()
	}
	return nil
}

// Finish writes the root and tells what it is of.
func (w *IndexWriter) Finish() (Input, error) {
	if w.count%protocol.BlockSize != 0 {
		if err := w.endBlock(); err != nil {
			return Input{}, err
		}
	}
	children := w.blocks
	if len(w.nodes) > 0 {
		if err := w.endNode(); err != nil {
			return Input{}, err
		}
		children = w.nodes
	}
	data, err := indexType.encode(&wireIndex{Count: int64(w.count), Bytes: int64(w.bytes), Children: wireLinks(children)})
	if err != nil {
		return Input{}, err
	}
	root, err := w.write(data)
	return Input{Root: root, Count: w.count, Bytes: w.bytes}, err
}

func (w *IndexWriter) endBlock() error {
	if len(w.blocks) == protocol.BlockSize {
		if err := w.endNode(); err != nil {
			return err
		}
	}
	entries, parts, err := w.block.finish()
	if err != nil {
		return err
	}
	var data []byte
	if len(parts) > 0 {
		data, err = indexBlockType.encode(&wireIndexBlock{Parts: &parts})
	} else {
		data, err = encodeEntries(entries)
	}
	if err != nil {
		return err
	}
	c, err := w.write(data)
	w.blocks = append(w.blocks, c)
	return err
}

func (w *IndexWriter) endNode() error {
	block, err := EncodeNode(Node{Children: w.blocks})
	if err != nil {
		return err
	}
	w.nodes = append(w.nodes, block.CID)
	w.blocks = w.blocks[:0]
	return w.put(block)
}

func (w *IndexWriter) write(data []byte) (cid.Cid, error) {
	block, err := cborBlock(data)
	if err != nil {
		return cid.Undef, err
	}
	return block.CID, w.put(block)
}

func encodeEntries(entries []wireEntry) ([]byte, error) {
	return indexBlockType.encode(&wireIndexBlock{Entries: &entries})
}

// check wants a piece with its root, or a line without one.
func (e *Entry) check() error {
	if e.Name != "" {
		if err := protocol.ValidName(e.Name); err != nil {
			return fmt.Errorf("the input's name: %w", err)
		}
	}
	if e.Size > math.MaxInt64 {
		return fmt.Errorf("size: %d does not fit 63 bits", e.Size)
	}
	if e.Root.Defined() {
		if e.Line != "" {
			return errors.New("it has a piece and a line: one of them is the input")
		}
		return checkLink(e.Root, codecRaw, codecDagPB)
	}
	switch {
	case e.Size != 0 || e.Name != "":
		return errors.New("it has a size or a name, but no piece")
	case len(e.Line) > MaxLine:
		return fmt.Errorf("the line has %d bytes, at most %d: put the data into an --input", len(e.Line), MaxLine)
	case !utf8.ValidString(e.Line) || strings.ContainsAny(e.Line, "\x00\n"):
		return fmt.Errorf("line %q is no line of UTF-8 text", shorten(e.Line, maxQuoted))
	}
	return nil
}
