package job

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

func inline(text string) protocol.Output {
	if text == "" {
		return protocol.Output{}
	}
	return protocol.Output{Size: uint64(len(text)), Inline: []byte(text)}
}

// drawResults is results without what a leaf leaves out.
func drawResults(r *rapid.T, root cid.Cid, most int) []protocol.Result {
	output := rapid.Custom(func(r *rapid.T) protocol.Output {
		size := rapid.SampledFrom([]int{0, 1, 7, 4095, 4096, -1}).Draw(r, "size")
		if size < 0 {
			return protocol.Output{Root: root, Size: rapid.Uint64Range(0, 1<<40).Draw(r, "file")}
		}
		if size == 0 {
			return protocol.Output{}
		}
		return inline(strings.Repeat(rapid.StringMatching(`[a-z]`).Draw(r, "letter"), size))
	})
	return rapid.SliceOfN(rapid.Custom(func(r *rapid.T) protocol.Result {
		result := protocol.Result{Exit: rapid.Int32().Draw(r, "exit"), Stdout: output.Draw(r, "stdout")}
		for i := range rapid.IntRange(0, 3).Draw(r, "files") {
			result.Files = append(result.Files, protocol.File{Name: fmt.Sprintf("f%d", i), Output: output.Draw(r, "file")})
		}
		return result
	}), 0, most).Draw(r, "results")
}

func putLeaf(t testing.TB, s *store, results []protocol.Result) cid.Cid {
	t.Helper()
	blocks, err := LeafOf(results)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := s.put(b); err != nil {
			t.Fatal(err)
		}
	}
	return blocks[0].CID
}

func allResults(t testing.TB, r *Results, n uint64) []protocol.Result {
	t.Helper()
	var all []protocol.Result
	for result, err := range r.All(protocol.Range{Hi: protocol.TaskIndex(n)}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, result)
	}
	return all
}

func TestLeafGivesTheResultsBack(t *testing.T) {
	root := rawCID(t, "file")
	rapid.Check(t, func(r *rapid.T) {
		results := drawResults(r, root, 400)
		s := newStore()
		leaf := putLeaf(t, s, results)
		got := allResults(t, ReadResults(leaf, uint64(len(results)), s.get), uint64(len(results)))
		if len(got) != len(results) || len(got) > 0 && !reflect.DeepEqual(got, results) {
			r.Fatalf("read %v, want %v", got, results)
		}
		if s.largest > MaxPack {
			r.Fatalf("a chunk of %d bytes", s.largest)
		}
	})
}

// Who ran a task, how long it took and what it logged is no part of its leaf.
func TestLeafIsOfResultsAlone(t *testing.T) {
	a := []protocol.Result{{Exit: 1, Stdout: inline("out")}}
	b := []protocol.Result{{Exit: 1, Stdout: inline("out"), Log: inline("log"), Wall: 7, CPU: 8}}
	x, y := newStore(), newStore()
	if putLeaf(t, x, a) != putLeaf(t, y, b) {
		t.Error("a log or a time changes the leaf")
	}
	b[0].Stdout = inline("tou")
	if putLeaf(t, x, a) == putLeaf(t, y, b) {
		t.Error("another output does not change the leaf")
	}
}

// No output straddles two packs, and they are full but for what would not fit.
func TestPacks(t *testing.T) {
	var results []protocol.Result
	for i := range 1024 {
		results = append(results, protocol.Result{Stdout: inline(strings.Repeat(string(rune('a'+i%26)), 3000))})
	}
	blocks, err := LeafOf(results)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := DecodeLeaf(blocks[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.Packs) != 3 || len(blocks) != 4 {
		t.Fatalf("%d packs, %d blocks", len(leaf.Packs), len(blocks))
	}
	for i, places := range leaf.Places() {
		pack := blocks[1+places[0].Pack]
		if pack.CID != leaf.Packs[places[0].Pack] || pack.CID.Prefix().Codec != cid.Raw {
			t.Fatalf("pack %d is not where it belongs", places[0].Pack)
		}
		if got := pack.Data[places[0].Offset:][:3000]; !bytes.Equal(got, results[i].Stdout.Inline) {
			t.Fatalf("output %d is not at %v", i, places[0])
		}
	}
	if want := MaxPack / 3000 * 3000; len(blocks[1].Data) != want {
		t.Errorf("the first pack has %d bytes, want %d", len(blocks[1].Data), want)
	}
}

// A leaf of many long file names is cut into parts.
func TestLeafOfManyFiles(t *testing.T) {
	var results []protocol.Result
	for i := range 40 {
		result := protocol.Result{Exit: int32(i)}
		for k := range protocol.MaxOutFiles {
			name := fmt.Sprintf("%04d/%s", k, strings.Repeat(strings.Repeat("x", 255)+"/", 3)+strings.Repeat("y", 200))
			result.Files = append(result.Files, protocol.File{Name: name, Output: inline(fmt.Sprint(i, k))})
		}
		results = append(results, result)
	}
	s := newStore()
	root := putLeaf(t, s, results)
	leaf, err := DecodeLeaf(s.chunks[root])
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.Parts) < 2 || leaf.Entries != nil || s.largest > MaxBlock {
		t.Fatalf("%d parts, %d entries, chunk of %d bytes", len(leaf.Parts), len(leaf.Entries), s.largest)
	}
	if got := allResults(t, ReadResults(root, 40, s.get), 40); !reflect.DeepEqual(got, results) {
		t.Error("the results are others")
	}
	if chunks := leaf.Chunks(); len(chunks)+1 != len(s.chunks) {
		t.Errorf("%d chunks listed, %d written", len(chunks)+1, len(s.chunks))
	}
}

func TestLeafOutputs(t *testing.T) {
	a, b := rawCID(t, "a"), mustCID(t, codecDagPB, "b")
	s := newStore()
	root := putLeaf(t, s, []protocol.Result{
		{Stdout: protocol.Output{Root: a, Size: 9000}},
		{Stdout: inline("x"), Files: []protocol.File{{Name: "f", Output: protocol.Output{Root: b, Size: 1 << 30}}}},
	})
	leaf, err := ReadLeaf(root, s.get)
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf.Outputs(); !reflect.DeepEqual(got, []cid.Cid{a, b}) {
		t.Errorf("outputs %v", got)
	}
}

func TestLeafOfRefuses(t *testing.T) {
	root := rawCID(t, "file")
	file := func(name string) protocol.File { return protocol.File{Name: name, Output: inline("x")} }
	for name, result := range map[string]protocol.Result{
		"says 9":        {Stdout: protocol.Output{Size: 9, Inline: []byte("x")}},
		"inline and":    {Stdout: protocol.Output{Root: root, Size: 1, Inline: []byte("x")}},
		"at most 4096":  {Stdout: inline(strings.Repeat("x", 4097))},
		"codec":         {Stdout: protocol.Output{Root: mustCID(t, cid.GitRaw, "x"), Size: 1}},
		"byte order":    {Files: []protocol.File{file("b"), file("a")}},
		"\"a\" is not":  {Files: []protocol.File{file("a"), file("a")}},
		"..":            {Files: []protocol.File{file("../a")}},
		"at most 256":   {Files: make([]protocol.File, 257)},
		"is not a CIDv": {Stdout: protocol.Output{Root: cid.NewCidV0(root.Hash()), Size: 1}},
	} {
		if _, err := LeafOf([]protocol.Result{result}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := LeafOf(make([]protocol.Result, 1025)); err == nil {
		t.Error("1025 results are a leaf")
	}
}

func TestDecodeLeafRefusesLies(t *testing.T) {
	link, raw := mustCID(t, codecDagCBOR, "x"), rawCID(t, "x")
	entries := func(e ...wireLeafEntry) wireResults { return wireResults{Entries: &e} }
	parts := func(p ...wirePart) wireResults { return wireResults{Parts: &p} }
	for name, w := range map[string]wireLeaf{
		"a pack too many":  {Packs: []wireLink{wireLink(raw)}, Results: entries()},
		"a pack too few":   {Results: entries(wireLeafEntry{Stdout: wireOutput{Size: 1}})},
		"a pack of CBOR":   {Packs: []wireLink{wireLink(link)}, Results: entries(wireLeafEntry{Stdout: wireOutput{Size: 1}})},
		"large inline":     {Packs: []wireLink{wireLink(raw)}, Results: entries(wireLeafEntry{Stdout: wireOutput{Size: 4097}})},
		"long exit status": {Results: entries(wireLeafEntry{Exit: 1 << 32})},
		"one part":         {Results: parts(wirePart{Count: 1, Link: wireLink(link)})},
		"an empty part":    {Results: parts(wirePart{Count: 0, Link: wireLink(link)}, wirePart{Count: 1, Link: wireLink(link)})},
		"many in parts":    {Results: parts(wirePart{Count: 1024, Link: wireLink(link)}, wirePart{Count: 1, Link: wireLink(link)})},
		"a raw part":       {Results: parts(wirePart{Count: 1, Link: wireLink(raw)}, wirePart{Count: 1, Link: wireLink(link)})},
		"many entries":     {Results: entries(make([]wireLeafEntry, 1025)...)},
	} {
		data, err := leafType.encode(&w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeLeaf(data); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeLeaf(make([]byte, MaxBlock+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestGoldenLeaf(t *testing.T) {
	blocks, err := LeafOf([]protocol.Result{
		{Stdout: inline("hello\n")},
		{Exit: 1, Stdout: protocol.Output{Root: rawCID(t, "file"), Size: 5000},
			Files: []protocol.File{{Name: "a/b", Output: inline("x")}, {Name: "c", Output: protocol.Output{}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "leaf.golden", describe(blocks...))
}

// Whatever a page may hold can be sealed: else a lying worker could stall a job.
func TestEveryPageCanBeSealed(t *testing.T) {
	_, worker := fixedKey(t)
	ref := protocol.StageRef{Job: protocol.JobIDOf(mustCID(t, codecDagCBOR, "job")), Key: protocol.InputKey{1}}
	roots := []cid.Cid{rawCID(t, "x"), mustCID(t, codecDagPB, "x"), mustCID(t, codecDagCBOR, "x"),
		mustCID(t, cid.GitRaw, "x"), cid.NewCidV0(rawCID(t, "x").Hash())}
	output := rapid.Custom(func(r *rapid.T) protocol.Output {
		if rapid.Bool().Draw(r, "inline") {
			return inline(strings.Repeat("x", rapid.IntRange(0, protocol.MaxInline+1).Draw(r, "length")))
		}
		return protocol.Output{Root: rapid.SampledFrom(roots).Draw(r, "root"), Size: rapid.Uint64().Draw(r, "size")}
	})
	accepted := 0
	rapid.Check(t, func(r *rapid.T) {
		result := protocol.Result{Exit: rapid.Int32().Draw(r, "exit"), Stdout: output.Draw(r, "stdout")}
		for _, name := range rapid.SliceOfN(rapid.StringMatching(`[ab./é-]{1,4}`), 0, 3).Draw(r, "names") {
			result.Files = append(result.Files, protocol.File{Name: name, Output: output.Draw(r, "file")})
		}
		page := protocol.Page{StageRef: ref, Range: protocol.Range{Hi: 1}, Worker: worker, Results: []protocol.Result{result}}
		if _, _, err := protocol.EncodePage(page); err != nil {
			return
		}
		accepted++
		s := newStore()
		got, err := ReadResults(putLeaf(t, s, page.Results), 1, s.get).Result(0)
		if err != nil || !reflect.DeepEqual(got, result) {
			r.Fatalf("read %+v, %v; want %+v", got, err, result)
		}
	})
	if accepted == 0 {
		t.Error("no page was accepted")
	}
}
