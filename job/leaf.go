package job

import (
	"errors"
	"fmt"
	"math"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

type wireLeaf struct {
	Packs   []wireLink  `cbor:"packs"`
	Results wireResults `cbor:"results"`
}

// wireResults is a union: one of the pointers is set.
type wireResults struct {
	Entries *[]wireLeafEntry `cbor:"entries,omitempty"`
	Parts   *[]wirePart      `cbor:"parts,omitempty"`
}

type wireLeafEntry struct {
	_      struct{} `cbor:",toarray"`
	Exit   int64
	Stdout wireOutput
	Files  []wireLeafFile
}

type wireOutput struct {
	_    struct{} `cbor:",toarray"`
	Root *wireLink
	Size uint64
}

type wireLeafFile struct {
	_    struct{} `cbor:",toarray"`
	Name string
	Root *wireLink
	Size uint64
}

var (
	leafType     = wireType[wireLeaf]{"Leaf", MaxBlock}
	leafPartType = wireType[wireResults]{"Results", MaxBlock}
)

func leafOf(results []protocol.Result) ([]Block, error) {
	if len(results) > protocol.BlockSize {
		return nil, fmt.Errorf("job: leaf: %d results, at most %d", len(results), protocol.BlockSize)
	}
	var packs, parts []Block
	pack := packer{put: collect(&packs)}
	list := parter[wireLeafEntry]{put: collect(&parts), encode: encodeLeafEntries}
	for i := range results {
		entry, weight, err := pack.result(&results[i])
		if err != nil {
			return nil, fmt.Errorf("job: leaf: result %d: %w", i, err)
		}
		if err := list.add(entry, weight); err != nil {
			return nil, err
		}
	}
	if err := pack.flush(); err != nil {
		return nil, err
	}
	entries, partLinks, err := list.finish()
	if err != nil {
		return nil, err
	}
	w := wireLeaf{Packs: wireLinks(pack.links)}
	if len(partLinks) > 0 {
		w.Results.Parts = &partLinks
	} else {
		w.Results.Entries = &entries
	}
	data, err := leafType.encode(&w)
	if err != nil {
		return nil, err
	}
	leaf, err := cborBlock(data)
	if err != nil {
		return nil, err
	}
	return append(append([]Block{leaf}, packs...), parts...), nil
}

func collect(blocks *[]Block) func(Block) error {
	return func(b Block) error {
		*blocks = append(*blocks, b)
		return nil
	}
}

func encodeLeafEntries(entries []wireLeafEntry) ([]byte, error) {
	return leafPartType.encode(&wireResults{Entries: &entries})
}

// packer lays inline outputs one after another into packs.
type packer struct {
	put   func(Block) error
	links []cid.Cid
	data  []byte
}

// result lays a result's outputs into the packs and gives its entry with its weight.
func (p *packer) result(r *protocol.Result) (wireLeafEntry, int, error) {
	stdout, err := p.output(r.Stdout)
	if err != nil {
		return wireLeafEntry{}, 0, fmt.Errorf("stdout: %w", err)
	}
	entry, weight := wireLeafEntry{Exit: int64(r.Exit), Stdout: stdout}, itemWeight
	for _, f := range r.Files {
		out, err := p.output(f.Output)
		if err != nil {
			return wireLeafEntry{}, 0, fmt.Errorf("file %q: %w", f.Name, err)
		}
		entry.Files = append(entry.Files, wireLeafFile{Name: f.Name, Root: out.Root, Size: out.Size})
		weight += itemWeight + len(f.Name)
	}
	_, err = entry.domain()
	return entry, weight, err
}

func (p *packer) output(o protocol.Output) (wireOutput, error) {
	if o.Root.Defined() {
		if len(o.Inline) > 0 {
			return wireOutput{}, errors.New("it is inline and a file of its own")
		}
		return wireOutput{Root: optional(o.Root), Size: o.Size}, nil
	}
	if o.Size != uint64(len(o.Inline)) {
		return wireOutput{}, fmt.Errorf("it has %d bytes inline, but says %d", len(o.Inline), o.Size)
	}
	if len(p.data)+len(o.Inline) > MaxPack {
		if err := p.flush(); err != nil {
			return wireOutput{}, err
		}
	}
	p.data = append(p.data, o.Inline...)
	return wireOutput{Size: o.Size}, nil
}

func (p *packer) flush() error {
	if len(p.data) == 0 {
		return nil
	}
	c, err := cidOf(codecRaw, p.data)
	if err != nil {
		return err
	}
	block := Block{CID: c, Data: p.data}
	p.links, p.data = append(p.links, c), nil
	return p.put(block)
}

// DecodeLeaf reads a leaf from anybody. Where it is too large for one block it comes
// without Entries, and with Parts that hold them: ReadLeaf puts it together.
func DecodeLeaf(data []byte) (Leaf, error) {
	w, err := leafType.decode(data)
	if err != nil {
		return Leaf{}, err
	}
	leaf := Leaf{Packs: cidsOf(w.Packs)}
	for _, c := range leaf.Packs {
		if err := checkLink(c, codecRaw); err != nil {
			return Leaf{}, malformed("leaf", err)
		}
	}
	if err := oneOf(w.Results.Entries != nil, w.Results.Parts != nil); err != nil {
		return Leaf{}, malformed("leaf", err)
	}
	if w.Results.Parts != nil {
		if leaf.Parts, err = checkParts(*w.Results.Parts, protocol.BlockSize); err != nil {
			return Leaf{}, malformed("leaf", err)
		}
		return leaf, nil
	}
	if leaf.Entries, err = leafEntries(*w.Results.Entries); err != nil {
		return Leaf{}, malformed("leaf", err)
	}
	return leaf, leaf.checkPacks()
}

// DecodeLeafPart reads one of a leaf's Parts.
func DecodeLeafPart(data []byte) ([]LeafEntry, error) {
	w, err := leafPartType.decode(data)
	if err != nil {
		return nil, err
	}
	if w.Entries == nil || len(*w.Entries) == 0 || w.Parts != nil {
		return nil, malformed("leaf part", errors.New("it has no entries"))
	}
	entries, err := leafEntries(*w.Entries)
	if err != nil {
		return nil, malformed("leaf part", err)
	}
	return entries, nil
}

// ReadLeaf fetches the leaf with that root, and its parts where it has some.
func ReadLeaf(root cid.Cid, get Getter) (Leaf, error) {
	data, err := get(root)
	if err != nil {
		return Leaf{}, fmt.Errorf("job: leaf %s: %w", root, err)
	}
	leaf, err := DecodeLeaf(data)
	if err != nil || len(leaf.Parts) == 0 {
		return leaf, err
	}
	for _, p := range leaf.Parts {
		data, err := get(p.Link)
		if err != nil {
			return Leaf{}, fmt.Errorf("job: leaf %s: part %s: %w", root, p.Link, err)
		}
		entries, err := DecodeLeafPart(data)
		if err != nil {
			return Leaf{}, err
		}
		if len(entries) != p.Count {
			return Leaf{}, malformed("leaf part", fmt.Errorf("it has %d entries, must have %d", len(entries), p.Count))
		}
		leaf.Entries = append(leaf.Entries, entries...)
	}
	return leaf, leaf.checkPacks()
}

func leafEntries(wire []wireLeafEntry) ([]LeafEntry, error) {
	if len(wire) > protocol.BlockSize {
		return nil, fmt.Errorf("it has %d entries, at most %d", len(wire), protocol.BlockSize)
	}
	entries := make([]LeafEntry, len(wire))
	for i := range wire {
		var err error
		if entries[i], err = wire[i].domain(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return entries, nil
}

func (w *wireLeafEntry) domain() (LeafEntry, error) {
	if w.Exit < math.MinInt32 || w.Exit > math.MaxInt32 {
		return LeafEntry{}, fmt.Errorf("exit status %d does not fit 32 bits", w.Exit)
	}
	if len(w.Files) > protocol.MaxOutFiles {
		return LeafEntry{}, fmt.Errorf("it has %d files, at most %d", len(w.Files), protocol.MaxOutFiles)
	}
	stdout, err := w.Stdout.domain()
	if err != nil {
		return LeafEntry{}, fmt.Errorf("stdout: %w", err)
	}
	entry := LeafEntry{Exit: int32(w.Exit), Stdout: stdout}
	for i, f := range w.Files {
		if err := protocol.ValidName(f.Name); err != nil {
			return LeafEntry{}, err
		}
		if i > 0 && w.Files[i-1].Name >= f.Name {
			return LeafEntry{}, fmt.Errorf("file %q is not in byte order", f.Name)
		}
		out, err := (&wireOutput{Root: f.Root, Size: f.Size}).domain()
		if err != nil {
			return LeafEntry{}, fmt.Errorf("file %q: %w", f.Name, err)
		}
		entry.Files = append(entry.Files, LeafFile{Name: f.Name, LeafOutput: out})
	}
	return entry, nil
}

func (w *wireOutput) domain() (LeafOutput, error) {
	switch {
	case w.Root != nil:
		root := cid.Cid(*w.Root)
		return LeafOutput{Root: root, Size: w.Size}, checkLink(root, codecRaw, codecDagPB, codecDagCBOR)
	case w.Size > protocol.MaxInline:
		return LeafOutput{}, fmt.Errorf("%d bytes inline, at most %d", w.Size, protocol.MaxInline)
	}
	return LeafOutput{Size: w.Size}, nil
}

// Place is where an inline output begins: in which pack, at which byte.
type Place struct{ Pack, Offset int }

// Places gives the place of every inline output: Places()[i][0] for the stdout of
// entry i, Places()[i][1+k] for its file k. It is the zero Place for an output that is
// a file of its own or empty.
func (l *Leaf) Places() [][]Place {
	var at Place
	next := func(o LeafOutput) Place {
		if o.Root.Defined() || o.Size == 0 {
			return Place{}
		}
		if at.Offset+int(o.Size) > MaxPack {
			at = Place{Pack: at.Pack + 1}
		}
		place := at
		at.Offset += int(o.Size)
		return place
	}
	places := make([][]Place, len(l.Entries))
	for i, e := range l.Entries {
		places[i] = append(make([]Place, 0, 1+len(e.Files)), next(e.Stdout))
		for _, f := range e.Files {
			places[i] = append(places[i], next(f.LeafOutput))
		}
	}
	return places
}

// checkPacks wants as many packs as the inline outputs fill.
func (l *Leaf) checkPacks() error {
	want := 0
	places := l.Places()
	for i, e := range l.Entries {
		if !e.Stdout.Root.Defined() && e.Stdout.Size > 0 {
			want = max(want, places[i][0].Pack+1)
		}
		for k, f := range e.Files {
			if !f.Root.Defined() && f.Size > 0 {
				want = max(want, places[i][1+k].Pack+1)
			}
		}
	}
	if len(l.Packs) != want {
		return malformed("leaf", fmt.Errorf("it has %d packs, its outputs fill %d", len(l.Packs), want))
	}
	return nil
}

// Chunks is the leaf's own chunks, beside itself: parts and packs.
func (l *Leaf) Chunks() []cid.Cid {
	var chunks []cid.Cid
	for _, p := range l.Parts {
		chunks = append(chunks, p.Link)
	}
	return append(chunks, l.Packs...)
}

// Outputs is the roots of the outputs that are files of their own, in task order.
func (l *Leaf) Outputs() []cid.Cid {
	var roots []cid.Cid
	for _, e := range l.Entries {
		if e.Stdout.Root.Defined() {
			roots = append(roots, e.Stdout.Root)
		}
		for _, f := range e.Files {
			if f.Root.Defined() {
				roots = append(roots, f.Root)
			}
		}
	}
	return roots
}
