package job

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// entryOf is the i-th of a made-up list of pieces.
func entryOf(root cid.Cid, i int) Entry {
	return Entry{Root: root, Size: uint64(i), Name: fmt.Sprintf("dir/%d.txt", i)}
}

func writeIndex(t testing.TB, put func(Block) error, n int, entry func(i int) Entry) Input {
	t.Helper()
	w := NewIndexWriter(put)
	for i := range n {
		if err := w.Add(entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	in, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func openIndex(t testing.TB, root cid.Cid, get Getter) *Index {
	t.Helper()
	x, err := ReadIndex(root, get)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestIndexOfEverySize(t *testing.T) {
	root := rawCID(t, "piece")
	for _, n := range []int{0, 1, 1023, 1024, 1025, 3000} {
		s := newStore()
		in := writeIndex(t, s.put, n, func(i int) Entry { return entryOf(root, i) })
		x := openIndex(t, in.Root, s.get)
		if want := uint64(n) * uint64(max(n, 1)-1) / 2; in.Count != uint64(n) || in.Bytes != want || x.Input() != in {
			t.Fatalf("%d entries: written %+v, read %+v", n, in, x.Input())
		}
		i := 0
		for e, err := range x.All(protocol.Range{Hi: protocol.TaskIndex(n)}) {
			if err != nil || e != entryOf(root, i) {
				t.Fatalf("entry %d of %d: %+v, %v", i, n, e, err)
			}
			i++
		}
		if i != n {
			t.Errorf("%d entries of %d", i, n)
		}
		if _, err := x.Entry(protocol.TaskIndex(n)); err == nil {
			t.Errorf("%d entries: entry %d is there", n, n)
		}
		checkChunks(t, s, x)
	}
}

// checkChunks wants the chunks of all blocks to be all of the store, and those of each to be
// enough to read it.
func checkChunks(t *testing.T, s *store, x *Index) {
	t.Helper()
	seen := map[cid.Cid]bool{}
	blocks := protocol.Blocks(x.Input().Count)
	for b := range protocol.Block(blocks) {
		chunks, err := x.Chunks(b)
		if err != nil {
			t.Fatal(err)
		}
		own := map[cid.Cid]bool{}
		for _, c := range chunks {
			seen[c], own[c] = true, true
		}
		alone := openIndex(t, x.Input().Root, func(c cid.Cid) ([]byte, error) {
			if !own[c] {
				return nil, fmt.Errorf("%s is not of block %d", c, b)
			}
			return s.get(c)
		})
		if _, err := alone.Block(b); err != nil {
			t.Error(err)
		}
	}
	if blocks == 0 {
		return
	}
	if len(seen) != len(s.chunks) {
		t.Errorf("%d chunks listed, %d written", len(seen), len(s.chunks))
	}
}

func TestIndexReadsWhatItNeeds(t *testing.T) {
	s := newStore()
	root := rawCID(t, "piece")
	in := writeIndex(t, s.put, 3000, func(i int) Entry { return entryOf(root, i) })
	x := openIndex(t, in.Root, s.get)
	for i := range 1024 {
		if _, err := x.Entry(protocol.TaskIndex(1024 + i)); err != nil {
			t.Fatal(err)
		}
	}
	if s.gets != 2 {
		t.Errorf("%d chunks fetched for one block, want 2", s.gets)
	}
}

// A million tasks take the memory of a block, and a level of nodes.
func TestIndexOfAMillion(t *testing.T) {
	const n = 1<<20 + 5000
	root := rawCID(t, "piece")
	s := newStore()
	chunks, written := 0, 0
	put := func(b Block) error {
		chunks++
		written += len(b.Data)
		if chunks > 1023 || chunks < 3 { // those that are read below
			return s.put(b)
		}
		return nil
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := NewIndexWriter(put)
	var peak uint64
	for i := range n {
		if err := w.Add(entryOf(root, i)); err != nil {
			t.Fatal(err)
		}
		if i%100_000 == 99_999 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc-min(before.HeapAlloc, after.HeapAlloc))
		}
	}
	in, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if const4 := uint64(4 << 20); peak > const4 {
		t.Errorf("the writer held %d bytes of %d written", peak, written)
	}
	x := openIndex(t, in.Root, s.get)
	if x.Input().Count != n || !x.nodes() {
		t.Fatalf("index of %+v", x.Input())
	}
	for _, i := range []int{0, 1024, n - 5000, n - 1} {
		if e, err := x.Entry(protocol.TaskIndex(i)); err != nil || e != entryOf(root, i) {
			t.Errorf("entry %d: %+v, %v", i, e, err)
		}
	}
	if c, err := x.Chunks(1024); err != nil || len(c) != 3 {
		t.Errorf("block 1024 has chunks %v, %v; want the root, its node and itself", c, err)
	}
}

// Long lines go into parts: no chunk passes its limit.
func TestIndexOfLongLines(t *testing.T) {
	s := newStore()
	line := func(i int) Entry {
		return Entry{Line: fmt.Sprintf("%d %s", i, strings.Repeat("é", MaxLine/2-10))}
	}
	in := writeIndex(t, s.put, 1500, line)
	if s.largest > MaxBlock {
		t.Errorf("a chunk of %d bytes", s.largest)
	}
	x := openIndex(t, in.Root, s.get)
	for i := range 1500 {
		if e, err := x.Entry(protocol.TaskIndex(i)); err != nil || e != line(i) {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	checkChunks(t, s, x)
}

func TestIndexWriterRefuses(t *testing.T) {
	root := rawCID(t, "piece")
	for part, e := range map[string]Entry{
		"at most 32768":     {Line: strings.Repeat("x", MaxLine+1)},
		"no line":           {Line: "a\nb"},
		"UTF-8":             {Line: "\xff"},
		"a piece and":       {Line: "a", Root: root},
		"but no piece":      {Size: 1},
		"..":                {Root: root, Name: "../x"},
		"63 bits":           {Root: root, Size: 1 << 63},
		"codec":             {Root: mustCID(t, codecDagCBOR, "x")},
		"not a CIDv1":       {Root: cid.NewCidV0(root.Hash())},
		"more than 2^63":    {Root: root, Size: 1<<63 - 1},
		"has the component": {Root: root, Name: "a//b"},
	} {
		w := NewIndexWriter(func(Block) error { return nil })
		if err := w.Add(Entry{Root: root, Size: 1}); err != nil {
			t.Fatal(err)
		}
		if err := w.Add(e); err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "entr") {
			if part != "more than 2^63" || err == nil {
				t.Errorf("%q: %v", part, err)
			}
		}
	}
}

func TestIndexWriterPassesOnErrors(t *testing.T) {
	full := errors.New("disk full")
	w := NewIndexWriter(func(Block) error { return full })
	if err := w.Add(Entry{Line: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// What does not hold together is refused with its kind, never believed.
func TestIndexRefusesLies(t *testing.T) {
	s := newStore()
	root := rawCID(t, "piece")
	in := writeIndex(t, s.put, 1030, func(i int) Entry { return entryOf(root, i) })
	w, err := decodeIndex(s.chunks[in.Root])
	if err != nil {
		t.Fatal(err)
	}
	lie := func(change func(w *wireIndex)) error {
		changed := wireIndex{Count: w.Count, Bytes: w.Bytes, Children: append([]wireLink(nil), w.Children...)}
		change(&changed)
		data, err := indexType.encode(&changed)
		if err != nil {
			t.Fatal(err)
		}
		block, err := cborBlock(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.put(block); err != nil {
			t.Fatal(err)
		}
		x, err := ReadIndex(block.CID, s.get)
		if err != nil {
			return err
		}
		_, err = x.Entry(protocol.TaskIndex(x.wire.Count - 1))
		return err
	}
	for name, change := range map[string]func(w *wireIndex){
		"fewer entries":     func(w *wireIndex) { w.Count-- },
		"more entries":      func(w *wireIndex) { w.Count++ },
		"more blocks":       func(w *wireIndex) { w.Count += 1024 },
		"negative":          func(w *wireIndex) { w.Count = -1 },
		"too many":          func(w *wireIndex) { w.Count = protocol.MaxTasks + 1 },
		"negative bytes":    func(w *wireIndex) { w.Bytes = -1 },
		"a piece for block": func(w *wireIndex) { w.Children[0] = wireLink(root) },
		"the root itself":   func(w *wireIndex) { w.Children[1] = wireLink(in.Root) },
	} {
		if err := lie(change); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := lie(func(w *wireIndex) { w.Children[1] = wireLink(mustCID(t, codecDagCBOR, "gone")) }); !errors.Is(err, errAbsent) {
		t.Errorf("a missing chunk: %v", err)
	}
}

func TestIndexIsDeterministic(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`[a-z ]{0,9}`), 0, 30).Draw(r, "lines")
		a, b := newStore(), newStore()
		line := func(i int) Entry { return Entry{Line: lines[i]} }
		x, y := writeIndex(t, a.put, len(lines), line), writeIndex(t, b.put, len(lines), line)
		if x != y || !reflect.DeepEqual(a.chunks, b.chunks) {
			r.Fatal("equal entries give another index")
		}
	})
}

func TestGoldenIndex(t *testing.T) {
	var blocks []Block
	put := func(b Block) error { blocks = append(blocks, b); return nil }
	root := rawCID(t, "piece")
	writeIndex(t, put, 3, func(i int) Entry {
		if i == 2 {
			return Entry{Line: "a line"}
		}
		return entryOf(root, i*1000)
	})
	golden(t, "index.golden", describe(blocks...))
}
