package chunkstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockservice"
	bstore "github.com/ipfs/boxo/blockstore"
	chunker "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"pgregory.net/rapid"
)

// wantPiece is what the oracle expects of a piece.
type wantPiece struct {
	name string
	data []byte
}

// oracle is the split rule written down naively, over the whole input in memory.
func oracle(split Split, files []sourceFile) (want []wantPiece) {
	switch split.Kind {
	case SplitFile:
		for _, f := range files {
			want = append(want, wantPiece(f))
		}
	case SplitNone:
		p := wantPiece{}
		for _, f := range files {
			if len(p.data) == 0 && (p.name == "" || len(f.data) > 0) {
				p.name = f.name
			}
			p.data = append(p.data, f.data...)
		}
		if len(p.data) == 0 && len(files) > 0 {
			p.name = files[0].name
		}
		want = append(want, p)
	case SplitBytes:
		for _, f := range files {
			for rest := f.data; len(rest) > 0; {
				n := min(int64(len(rest)), split.Size)
				want = append(want, wantPiece{f.name, rest[:n]})
				rest = rest[n:]
			}
		}
	case SplitLines:
		return oracleLines(split.Size, files)
	}
	return want
}

func oracleLines(size int64, files []sourceFile) (want []wantPiece) {
	var lines []wantPiece // each with its newline
	for i, f := range files {
		more := false
		for _, later := range files[i+1:] {
			more = more || len(later.data) > 0
		}
		for rest := f.data; len(rest) > 0; {
			n := bytes.IndexByte(rest, '\n') + 1
			line := append([]byte{}, rest[:max(n, 0)]...)
			if n == 0 {
				line, n = append([]byte{}, rest...), len(rest)
				if more {
					line = append(line, '\n')
				}
			}
			lines = append(lines, wantPiece{f.name, line})
			rest = rest[n:]
		}
	}
	for _, l := range lines {
		if last := len(want) - 1; last >= 0 && int64(len(want[last].data)+len(l.data)) <= size {
			want[last].data = append(want[last].data, l.data...)
			continue
		}
		want = append(want, wantPiece{l.name, append([]byte{}, l.data...)})
	}
	return want
}

func checkImport(t testing.TB, s *Store, split Split, files []sourceFile) {
	t.Helper()
	got, sum := importAll(t, s, split, files...)
	want := oracle(split, files)
	if len(got) != len(want) || sum.Pieces != int64(len(want)) || sum.Files != int64(len(files)) {
		t.Fatalf("%v: %d pieces, summary %+v; want %d", split, len(got), sum, len(want))
	}
	total := int64(0)
	for i, p := range got {
		data := fileBytes(t, s, p.Root)
		if !bytes.Equal(data, want[i].data) || p.Size != int64(len(data)) {
			t.Fatalf("%v: piece %d of %d differs: %d bytes, want %d", split, i, len(got), p.Size, len(want[i].data))
		}
		if p.Name != want[i].name {
			t.Fatalf("%v: piece %d is named %q, want %q", split, i, p.Name, want[i].name)
		}
		total += p.Size
	}
	if total != sum.Bytes {
		t.Fatalf("summary says %d bytes, pieces are %d", sum.Bytes, total)
	}
}

func TestImportMatchesOracle(t *testing.T) {
	s := testStore(t)
	rapid.Check(t, func(r *rapid.T) {
		split := Split{Kind: SplitKind(rapid.IntRange(0, 3).Draw(r, "kind"))}
		if split.Kind == SplitLines || split.Kind == SplitBytes {
			split.Size = rapid.Int64Range(1, 40).Draw(r, "size")
		}
		var files []sourceFile
		for i := range rapid.IntRange(0, 4).Draw(r, "files") {
			data := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 0, 60).Draw(r, "data")
			files = append(files, sourceFile{numbered(i), data})
		}
		checkImport(t, s, split, files)
	})
}

// TestImportLongLines moves lines of up to several chunks across every kind of boundary.
func TestImportLongLines(t *testing.T) {
	s := testStore(t, func(c *Config) { c.Quota = 2 << 30 })
	rapid.Check(t, func(r *rapid.T) {
		unit := MaxChunk / 4
		split := Split{Kind: SplitLines, Size: int64(rapid.IntRange(1, 18).Draw(r, "size") * unit)}
		var files []sourceFile
		for i := range rapid.IntRange(1, 2).Draw(r, "files") {
			var data []byte
			for range rapid.IntRange(0, 5).Draw(r, "lines") {
				n := rapid.IntRange(0, 14).Draw(r, "length")*unit + rapid.IntRange(-2, 2).Draw(r, "delta")
				data = append(data, bytes.Repeat([]byte{byte('a' + len(data)%26)}, max(n, 0))...)
				data = append(data, '\n')
			}
			if len(data) > 0 && rapid.Bool().Draw(r, "open end") {
				data = data[:len(data)-1]
			}
			files = append(files, sourceFile{numbered(i), data})
		}
		checkImport(t, s, split, files)
	})
}

func TestImportEmpty(t *testing.T) {
	s := testStore(t)
	for _, split := range []Split{{Kind: SplitNone}, {Kind: SplitLines}, {Kind: SplitBytes, Size: 3}, {Kind: SplitFile}} {
		checkImport(t, s, split, nil)
		checkImport(t, s, split, []sourceFile{{"empty", nil}})
		checkImport(t, s, split, []sourceFile{{"empty", nil}, {"too", nil}})
	}
}

// kuboRoot is the root by the importer that kubo uses.
func kuboRoot(t *testing.T, data []byte) string {
	t.Helper()
	blocks := bstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	params := helpers.DagBuilderParams{
		Maxlinks: helpers.DefaultLinksPerBlock, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix(),
		Dagserv: merkledag.NewDAGService(blockservice.New(blocks, offline.Exchange(blocks))),
	}
	db := must(params.New(chunker.NewSizeSplitter(bytes.NewReader(data), MaxChunk)))(t)
	return must(balanced.Layout(db))(t).Cid().String()
}

func TestRootsAreKubos(t *testing.T) {
	s := testStore(t)
	zeros := make([]byte, 176*MaxChunk+5)
	for _, n := range []int{0, 1, MaxChunk - 1, MaxChunk, MaxChunk + 1, 3 * MaxChunk, 174 * MaxChunk, 174*MaxChunk + 1, 175 * MaxChunk, 176*MaxChunk + 5} {
		pieces, _ := importAll(t, s, Split{}, sourceFile{"zeros", zeros[:n]})
		if got, want := pieces[0].Root.String(), kuboRoot(t, zeros[:n]); got != want {
			t.Errorf("%d bytes: root %s, kubo's importer makes %s", n, got, want)
		}
	}
}

// TestLayoutDepth compares the layout with the importer's where a third level begins, on leaves too small to matter.
func TestLayoutDepth(t *testing.T) {
	for _, leaves := range []int{1, 2, fanout, fanout + 1, fanout * fanout, fanout*fanout + 1, fanout*fanout + fanout + 1} {
		blocks := bstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
		params := helpers.DagBuilderParams{
			Maxlinks: fanout, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix(),
			Dagserv: merkledag.NewDAGService(blockservice.New(blocks, offline.Exchange(blocks))),
		}
		db := must(params.New(chunker.NewSizeSplitter(bytes.NewReader(make([]byte, leaves)), 1)))(t)
		want := must(balanced.Layout(db))(t).Cid()
		s := testStore(t)
		leaf := must(s.Put(context.Background(), []byte{0}))(t)
		l := layout{put: func(b []byte) (cid.Cid, error) { return s.putNode(context.Background(), b) }}
		for range leaves {
			if err := l.add(child{cid: leaf, size: 1, sum: 1}); err != nil {
				t.Fatal(err)
			}
		}
		root := must(l.root())(t)
		if !root.cid.Equals(want) || root.size != uint64(leaves) {
			t.Errorf("%d leaves: root %s of %d bytes, want %s", leaves, root.cid, root.size, want)
		}
	}
}

// TestGoldenRoots fixes names for ever: jobs and results are named by them.
func TestGoldenRoots(t *testing.T) {
	s := testStore(t)
	for _, v := range []struct {
		split Split
		data  []byte
		root  string
	}{
		{Split{}, nil, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}, // `ipfs add --cid-version=1` of an empty file
		{Split{}, []byte("hello world\n"), "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"},
	} {
		pieces, _ := importAll(t, s, v.split, sourceFile{"x", v.data})
		if got := pieces[0].Root.String(); got != v.root {
			t.Errorf("%q: root %s, want %s", v.data, got, v.root)
		}
	}
}

func TestImportQuotaInTheMiddle(t *testing.T) {
	s := testStore(t, func(c *Config) { c.Quota = 8 * MaxChunk })
	im := must(s.NewImport(Split{Kind: SplitBytes, Size: MaxChunk}, nil))(t)
	err := im.Add(context.Background(), "big", bytes.NewReader(randomBytes(1, 20*MaxChunk)))
	var q *QuotaError
	if !errors.As(err, &q) || q.Quota != 8*MaxChunk || q.Used > q.Quota {
		t.Fatalf("got %v", err)
	}
	if s.Used() > s.Quota() {
		t.Fatalf("used %d of %d", s.Used(), s.Quota())
	}
	if _, err := im.Finish(context.Background()); !errors.Is(err, ErrQuota) {
		t.Fatalf("finish after the failure: %v", err)
	}
	im.Drop()
	// What the import left may be collected now, so the next one has room.
	pieces, _ := importAll(t, s, Split{}, sourceFile{"small", randomBytes(2, 5*MaxChunk)})
	if missing := must(s.Missing(context.Background(), pieces[0].Root))(t); len(missing) != 0 {
		t.Fatalf("missing %v", missing)
	}
}

// TestImportMemoryIsConstant imports far more than it may take in memory. The chunks are equal, so the disk is spared.
func TestImportMemoryIsConstant(t *testing.T) {
	s := testStore(t, func(c *Config) { c.Writers = 2 })
	var peak, before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	watch := func(Piece) error {
		var now runtime.MemStats
		if runtime.ReadMemStats(&now); now.HeapAlloc > peak.HeapAlloc {
			peak = now
		}
		return nil
	}
	for _, split := range []string{"none", "lines:8MiB", "lines:1"} { // no newline at all: one line of 256 MiB
		im := must(s.NewImport(must(ParseSplit(split))(t), watch))(t)
		if err := im.Add(t.Context(), "zeros", io.LimitReader(zeros{}, 256<<20)); err != nil {
			t.Fatal(err)
		}
		if sum := must(im.Finish(t.Context()))(t); sum.Bytes != 256<<20 || sum.Pieces != 1 {
			t.Fatalf("%s: %+v", split, sum)
		}
		im.Drop()
	}
	if grown := int64(peak.HeapAlloc) - int64(before.HeapAlloc); grown > 48<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestImportFailures(t *testing.T) {
	s := testStore(t)
	broken := errors.New("broken pipe")
	im := must(s.NewImport(Split{Kind: SplitLines}, nil))(t)
	if err := im.Add(context.Background(), "a", io.MultiReader(bytes.NewReader(make([]byte, 100)), iotestErr{broken})); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if err := im.Commit(context.Background(), "x"); !errors.Is(err, ErrClosed) {
		t.Fatalf("commit of a failed import: %v", err)
	}
	im.Drop()
	im.Drop()
	refused := errors.New("refused")
	im = must(s.NewImport(Split{Kind: SplitFile}, func(Piece) error { return refused }))(t)
	defer im.Drop()
	for i := range 100 {
		if err := im.Add(context.Background(), numbered(i), bytes.NewReader([]byte{1})); err != nil {
			if !errors.Is(err, refused) {
				t.Fatal(err)
			}
			break
		}
	}
	if _, err := im.Finish(context.Background()); !errors.Is(err, refused) {
		t.Fatalf("got %v", err)
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

func TestParseSplit(t *testing.T) {
	for text, want := range map[string]Split{
		"none": {}, "file": {Kind: SplitFile}, "lines": {SplitLines, 8 << 20}, "lines:8MiB": {SplitLines, 8 << 20},
		"bytes:8MB": {SplitBytes, 8_000_000}, "bytes:8388608": {SplitBytes, 8 << 20}, "lines:1": {SplitLines, 1},
	} {
		got, err := ParseSplit(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if again, err := ParseSplit(got.String()); err != nil || again != got {
			t.Errorf("%q: %v, %v after String", text, again, err)
		}
	}
	for _, text := range []string{"", "csv:8MiB", "fasta", "files:1MiB", "lines:", "lines:0", "lines:-1", "bytes:9999TiB", "bytes:1e400", "file:3", "none:", "Lines"} {
		if got, err := ParseSplit(text); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

func FuzzParseSplit(f *testing.F) {
	f.Add("lines:8MiB")
	f.Fuzz(func(t *testing.T, text string) {
		split, err := ParseSplit(text)
		if err != nil {
			return
		}
		if again, err := ParseSplit(split.String()); err != nil || again != split {
			t.Fatalf("%q: %v, %v", text, again, err)
		}
	})
}

// benchText is 64 MiB of lines of 60 bytes; stamp makes every chunk of it new.
func benchText() []byte {
	text := randomBytes(1, 64<<20)
	for i := range text {
		text[i] = 'a' + text[i]&15
	}
	for i := 59; i < len(text); i += 60 {
		text[i] = '\n'
	}
	return text
}

func stamp(text []byte, round int) {
	for i := 0; i+8 <= len(text); i += 32 << 10 {
		copy(text[i:], fmt.Sprintf("%08d", round))
	}
}

// BenchmarkSHA256 is what an import is measured against: at least half its speed on one core (-cpu 1).
func BenchmarkSHA256(b *testing.B) {
	text := benchText()
	b.SetBytes(int64(len(text)))
	began := cpuTime(b)
	for b.Loop() {
		for chunk := range slices.Chunk(text, MaxChunk) {
			sha256.Sum256(chunk)
		}
	}
	reportCPU(b, cpuTime(b)-began, int64(len(text)))
}

func BenchmarkImport(b *testing.B) {
	text := benchText()
	for _, split := range []string{"none", "lines:8MiB", "bytes:8MiB", "lines:64KiB"} {
		b.Run(split, func(b *testing.B) {
			s := testStore(b, func(c *Config) { c.Quota = 256 << 20 }) // full after a few rounds, as a store in use is
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var used time.Duration
			for i := 0; b.Loop(); i++ {
				stamp(text, i)
				began := cpuTime(b)
				im := must(s.NewImport(must(ParseSplit(split))(b), nil))(b)
				if err := im.Add(context.Background(), "x", bytes.NewReader(text)); err != nil {
					b.Fatal(err)
				}
				if _, err := im.Finish(context.Background()); err != nil {
					b.Fatal(err)
				}
				im.Drop()
				used += cpuTime(b) - began
			}
			reportCPU(b, used, int64(len(text)))
		})
	}
}
