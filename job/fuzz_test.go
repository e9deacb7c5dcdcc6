package job

import (
	"bytes"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

func FuzzOpen(f *testing.F) {
	f.Add(sign(f, build(f, fullSpec(f))).Raw)
	f.Add(sign(f, build(f, arraySpec(f, 5))).Raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Open(data)
		if err != nil {
			return
		}
		key, _ := fixedKey(t)
		again, err := Sign(s.Manifest, key)
		if err != nil || again.ID != s.ID {
			t.Fatalf("opened, but signs to %v, %v", again, err)
		}
	})
}

// FuzzManifest gets behind the signature: whatever bytes are a manifest, all that is
// asked of it ends without a panic, and it has one form.
func FuzzManifest(f *testing.F) {
	for _, s := range []Spec{fullSpec(f), arraySpec(f, 5)} {
		m := build(f, s)
		_, data, err := manifestBytes(&m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := manifestType.decode(data)
		if err != nil {
			return
		}
		m, err := w.domain()
		if err != nil {
			return
		}
		valid := m.Validate() == nil
		m.OutputStage()
		for stage := range m.Stages {
			m.GroupOf(protocol.StageIndex(stage), 7)
			m.GroupTasks(protocol.StageIndex(stage), 3)
		}
		for stage := range protocol.StageIndex(len(m.Stages) + 1) {
			for _, e := range []Entry{{}, {Root: rawCID(t, "x"), Name: "a/b"}, {Line: "a b c"}} {
				_, _ = m.Task(stage, 0, e)
			}
		}
		_, again, err := manifestBytes(&m)
		if valid && (err != nil || !bytes.Equal(again, data)) {
			t.Fatalf("%x encodes to %x, %v", data, again, err)
		}
	})
}

func FuzzLeaf(f *testing.F) {
	blocks, err := LeafOf([]protocol.Result{
		{Stdout: inline("x")},
		{Exit: 1, Files: []protocol.File{{Name: "f", Output: protocol.Output{Root: rawCID(f, "x"), Size: 5000}}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blocks[0].Data)
	parts := []wirePart{{Count: 1, Link: wireLink(blocks[0].CID)}, {Count: 2, Link: wireLink(blocks[0].CID)}}
	data, err := leafType.encode(&wireLeaf{Results: wireResults{Parts: &parts}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = DecodeLeafPart(data)
		leaf, err := DecodeLeaf(data)
		if err != nil {
			return
		}
		if places := leaf.Places(); len(places) != len(leaf.Entries) {
			t.Fatalf("%d places of %d entries", len(places), len(leaf.Entries))
		}
		leaf.Chunks()
		leaf.Outputs()
		r := ReadResults(mustCID(t, codecDagCBOR, ""), uint64(len(leaf.Entries)), serve(data))
		for _, err := range r.All(protocol.Range{Hi: protocol.TaskIndex(len(leaf.Entries))}) {
			_ = err
		}
	})
}

func FuzzNode(f *testing.F) {
	b, err := EncodeNode(Node{Children: []cid.Cid{mustCID(f, codecDagCBOR, "x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := DecodeNode(data)
		if err != nil {
			return
		}
		if again, err := EncodeNode(n); err != nil || !bytes.Equal(again.Data, data) {
			t.Fatalf("%x encodes to %x, %v", data, again.Data, err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	root := rawCID(f, "piece")
	writeIndex(f, func(b Block) error { f.Add(b.Data); return nil }, 3, func(i int) Entry { return entryOf(root, i) })
	s := newStore()
	in := writeIndex(f, s.put, 40, func(int) Entry { return Entry{Line: strings.Repeat("x", MaxLine)} })
	w, err := decodeIndex(s.chunks[in.Root])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.chunks[cid.Cid(w.Children[0])])
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = decodeIndexBlock(data)
		x, err := ReadIndex(root, serve(data))
		if err != nil {
			return
		}
		for _, i := range []uint64{0, x.Input().Count - 1} {
			if _, err := x.Entry(protocol.TaskIndex(i)); err == nil {
				t.Fatal("a root is its own block")
			}
		}
	})
}

// serve gives the same bytes for every CID: as a lying peer would, were chunks not
// checked.
func serve(data []byte) Getter {
	return func(cid.Cid) ([]byte, error) { return data, nil }
}

func FuzzSplitArgs(f *testing.F) {
	for _, s := range []string{"", "a b", `a 'b c' "d\"e" \f`, "a\\\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := SplitArgs(s)
		if err != nil {
			return
		}
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		again, err := SplitArgs(strings.Join(quoted, " "))
		if err != nil || strings.Join(again, "\x00") != strings.Join(words, "\x00") {
			t.Fatalf("%q: %q, quoted %q, %v", s, words, again, err)
		}
	})
}

func FuzzOutputName(f *testing.F) {
	f.Add("{dir}/{stem}-{index}{ext}", "a/b.txt")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		got, err := OutputName(pattern, 7, 8, name)
		if err == nil && protocol.ValidName(got) != nil {
			t.Fatalf("%q of %q gives %q", pattern, name, got)
		}
	})
}
