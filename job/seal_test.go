package job

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

func TestSealShape(t *testing.T) {
	for n, want := range map[uint64][]uint64{
		0:           {1},
		1:           {1},
		1024:        {1},
		1025:        {2, 1},
		1 << 20:     {1024, 1},
		1<<20 + 1:   {1025, 2, 1},
		1 << 30:     {1 << 20, 1 << 10, 1},
		10_000_000:  {9766, 10, 1},
		1 << 10 * 3: {3, 1},
	} {
		if got := SealShape(n); !slices.Equal(got, want) {
			t.Errorf("%d tasks: %v, want %v", n, got, want)
		}
		if TopLevel(n) != len(want)-1 || TopLevel(n) > protocol.MaxLevel {
			t.Errorf("%d tasks: top level %d", n, TopLevel(n))
		}
	}
}

// sealAll builds all seals of a stage and gives the top one's root.
func sealAll(t *testing.T, s *store, results []protocol.Result) cid.Cid {
	t.Helper()
	var level []cid.Cid
	for chunk := range slices.Chunk(results, protocol.BlockSize) {
		level = append(level, putLeaf(t, s, chunk))
	}
	if len(results) == 0 {
		level = append(level, putLeaf(t, s, nil))
	}
	for len(level) > 1 {
		var above []cid.Cid
		for children := range slices.Chunk(level, protocol.BlockSize) {
			node, err := EncodeNode(Node{Children: children})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.put(node); err != nil {
				t.Fatal(err)
			}
			above = append(above, node.CID)
		}
		level = above
	}
	return level[0]
}

func numbered(n int) []protocol.Result {
	results := make([]protocol.Result, n)
	for i := range results {
		results[i].Stdout = inline(fmt.Sprintln(i))
	}
	return results
}

func TestResultsOfEverySize(t *testing.T) {
	for _, n := range []int{0, 1, 1024, 1025, 5000} {
		s := newStore()
		want := numbered(n)
		root := sealAll(t, s, want)
		r := ReadResults(root, uint64(n), s.get)
		if got := allResults(t, r, uint64(n)); len(got) != n || n > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%d results: read %d others", n, len(got))
		}
		if _, err := r.Result(protocol.TaskIndex(n)); err == nil {
			t.Errorf("%d results: result %d is there", n, n)
		}
		seen := map[cid.Cid]bool{}
		for b := range protocol.Block(SealShape(uint64(n))[0]) {
			chunks, err := r.Chunks(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range chunks {
				seen[c] = true
			}
		}
		if len(seen) != len(s.chunks) {
			t.Errorf("%d results: %d chunks listed, %d written", n, len(seen), len(s.chunks))
		}
	}
}

func TestResultsAreReadLazily(t *testing.T) {
	s := newStore()
	r := ReadResults(sealAll(t, s, numbered(5000)), 5000, s.get)
	for result, err := range r.All(protocol.Range{Lo: 2100, Hi: 3000}) {
		if err != nil || len(result.Stdout.Inline) != 5 {
			t.Fatalf("%v, %v", result, err)
		}
	}
	if s.gets != 3 {
		t.Errorf("%d chunks fetched, want node, leaf and pack", s.gets)
	}
}

// Three levels, with one leaf that stands for all others.
func TestResultsOfThreeLevels(t *testing.T) {
	const n = 1<<20 + 3000
	s := newStore()
	full, last := putLeaf(t, s, numbered(1024)), putLeaf(t, s, numbered(3000-2*1024))
	node := func(children []cid.Cid) cid.Cid {
		b, err := EncodeNode(Node{Children: children})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.put(b); err != nil {
			t.Fatal(err)
		}
		return b.CID
	}
	root := node([]cid.Cid{node(slices.Repeat([]cid.Cid{full}, 1024)), node([]cid.Cid{full, full, last})})
	r := ReadResults(root, n, s.get)
	for _, i := range []protocol.TaskIndex{0, 1 << 20, 1<<20 - 1, n - 1} {
		result, err := r.Result(i)
		if want := fmt.Sprintln(i % 1024); err != nil || string(result.Stdout.Inline) != want {
			t.Errorf("result %d: %q, %v; want %q", i, result.Stdout.Inline, err, want)
		}
	}
	if c, err := r.Chunks(1024); err != nil || len(c) != 3 {
		t.Errorf("block 1024 has chunks %v, %v; want node, leaf, pack", c, err)
	}
}

func TestResultsRefuseLies(t *testing.T) {
	s := newStore()
	root := sealAll(t, s, numbered(1500))
	for name, n := range map[string]uint64{"fewer": 1499, "more": 1501, "more blocks": 3000, "a block": 1024, "none": 0} {
		r := ReadResults(root, n, s.get)
		if _, err := r.Leaf(protocol.Block(SealShape(n)[0] - 1)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	leaf, err := ReadLeaf(putLeaf(t, s, numbered(5)), s.get)
	if err != nil {
		t.Fatal(err)
	}
	short := *s
	short.chunks = map[cid.Cid][]byte{}
	for c, data := range s.chunks {
		short.chunks[c] = data
	}
	short.chunks[leaf.Packs[0]] = []byte("0\n")
	lying := ReadResults(putLeaf(t, newStore(), numbered(5)), 5, short.get)
	if _, err := lying.Result(4); !errors.Is(err, ErrMalformed) {
		t.Errorf("a short pack: %v", err)
	}
}

func TestNodeRefuses(t *testing.T) {
	link := mustCID(t, codecDagCBOR, "x")
	for name, n := range map[string]Node{
		"empty": {},
		"many":  {Children: slices.Repeat([]cid.Cid{link}, 1025)},
		"raw":   {Children: []cid.Cid{rawCID(t, "x")}},
	} {
		if _, err := EncodeNode(n); err == nil {
			t.Errorf("%s: encoded", name)
		}
		data, err := nodeType.encode(&wireNode{Children: wireLinks(n.Children)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeNode(data); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
