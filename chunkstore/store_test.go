package chunkstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"
)

// reopen closes a store and opens its directory again.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := must(Open(s.cfg))(t)
	t.Cleanup(func() { again.Close() })
	return again
}

func TestPutGetDelete(t *testing.T) {
	s := testStore(t)
	for _, size := range []int{0, 1, 4096, 4097, MaxChunk} {
		data := randomBytes(uint64(size), size)
		c := must(s.Put(t.Context(), data))(t)
		if again := must(s.Put(t.Context(), data))(t); again != c {
			t.Fatalf("names differ: %s, %s", c, again)
		}
		if got := must(s.Get(t.Context(), c))(t); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes differ", size)
		}
		if n, ok := s.Size(c); !ok || n != size {
			t.Fatalf("size %d of %d", n, size)
		}
		path, ok := s.Path(c)
		if onDisk := must(os.ReadFile(path))(t); !ok || !bytes.Equal(onDisk, data) {
			t.Fatal("file differs")
		}
		if info := must(os.Stat(path))(t); info.Mode() != 0o444 {
			t.Fatalf("mode %v", info.Mode())
		}
		if want := charge(size); s.Used() != want {
			t.Fatalf("used %d, want %d", s.Used(), want)
		}
		if err := errors.Join(s.Delete(c), s.Delete(c)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), c); !errors.Is(err, ErrNotFound) || s.Has(c) || s.Used() != 0 {
			t.Fatalf("after delete: %v, used %d", err, s.Used())
		}
	}
	if _, err := s.Put(t.Context(), make([]byte, MaxChunk+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
}

func TestPutBlock(t *testing.T) {
	s := testStore(t)
	data := []byte("some bytes")
	sum := sha256.Sum256(data)
	mh := must(multihash.Encode(sum[:], multihash.SHA2_256))(t)
	identity := must(multihash.Encode(data, multihash.IDENTITY))(t)
	long := must(multihash.Encode(make([]byte, maxIdentity+1), multihash.IDENTITY))(t)
	sha1 := must(multihash.Sum(data, multihash.SHA1, -1))(t)
	for _, v := range []struct {
		name string
		cid  cid.Cid
		want error
	}{
		{"raw", cid.NewCidV1(cid.Raw, mh), nil},
		{"dag-pb", cid.NewCidV1(cid.DagProtobuf, mh), nil},
		{"dag-cbor", cid.NewCidV1(cid.DagCBOR, mh), nil},
		{"version 0", cid.NewCidV0(mh), nil},
		{"identity", cid.NewCidV1(cid.Raw, identity), nil},
		{"other codec", cid.NewCidV1(cid.Libp2pKey, mh), ErrUnsupported},
		{"other hash", cid.NewCidV1(cid.Raw, sha1), ErrUnsupported},
		{"long identity", cid.NewCidV1(cid.Raw, long), ErrUnsupported},
		{"undefined", cid.Undef, ErrUnsupported},
	} {
		if err := s.PutBlock(t.Context(), v.cid, data); !errors.Is(err, v.want) {
			t.Errorf("%s: %v, want %v", v.name, err, v.want)
		}
		if got, err := s.Get(t.Context(), v.cid); v.want == nil && (err != nil || !bytes.Equal(got, data)) || v.want != nil && err == nil {
			t.Errorf("%s: get: %v", v.name, err)
		}
		if v.want == nil {
			if err := s.PutBlock(t.Context(), v.cid, []byte("others")); !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: other bytes: %v", v.name, err)
			}
		}
	}
	if n := s.Usage().Chunks; n != 1 {
		t.Errorf("%d files for one content", n)
	}
}

// damage changes the file of a chunk behind the store's back.
func damage(t testing.TB, s *Store, c cid.Cid, change func([]byte) []byte) {
	t.Helper()
	k, _, _ := keyOf(c)
	path := s.disk.path(k)
	data := change(must(os.ReadFile(path))(t))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if data != nil {
		if err := os.WriteFile(path, data, 0o444); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCorruptedFile(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	remove := func([]byte) []byte { return nil }
	data := randomBytes(1, 10_000)
	for name, change := range map[string]func([]byte) []byte{"flipped bit": flip, "cut": cut, "removed": remove} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			c := must(s.Put(t.Context(), data))(t)
			s = reopen(t, s)
			damage(t, s, c, change)
			if _, err := s.Get(t.Context(), c); !errors.Is(err, ErrCorrupt) || !errors.Is(err, ErrNotFound) {
				t.Fatalf("got %v", err)
			}
			if s.Has(c) || s.Used() != 0 {
				t.Fatalf("still there, used %d", s.Used())
			}
			// Put over a damaged file must not take it for the data.
			must(s.Put(t.Context(), data))(t)
			s = reopen(t, s)
			damage(t, s, c, change)
			must(s.Put(t.Context(), data))(t)
			if got, err := s.Get(t.Context(), c); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("after Put: %v", err)
			}
			// Nor must Path and the file reader serve it.
			for _, read := range []func(s *Store) bool{
				func(s *Store) bool { _, ok := s.Path(c); return ok },
				func(s *Store) bool { r, err := s.FileReader(t.Context(), c); return err == nil && readsAll(r) },
				func(s *Store) bool { return s.Verify(t.Context(), c) == nil },
				func(s *Store) bool {
					_, err := s.Materialise(t.Context(), c, filepath.Join(t.TempDir(), "f"))
					return err == nil
				},
			} {
				must(s.Put(t.Context(), data))(t)
				s = reopen(t, s)
				damage(t, s, c, change)
				if read(s) {
					t.Error("a damaged file was served")
				}
			}
		})
	}
}

func readsAll(r *FileReader) bool {
	n, err := r.WriteTo(new(bytes.Buffer))
	return err == nil && n == r.Size()
}

func TestOpenAfterCrash(t *testing.T) {
	s := testStore(t)
	c := must(s.Put(t.Context(), []byte("whole")))(t)
	torn := must(s.Put(t.Context(), []byte("torn")))(t)
	damage(t, s, torn, func([]byte) []byte { return []byte{} })
	for _, stray := range []string{"tmp/0123456789abcdef", "chunks/00/not-a-chunk"} {
		if err := os.WriteFile(filepath.Join(s.cfg.Dir, stray), []byte("half"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	im := must(s.NewImport(Split{}, nil))(t)
	if err := s.pin(map[string][]cid.Cid{im.set: {c}}); err != nil {
		t.Fatal(err)
	}
	defer im.Drop()
	s2 := reopen(t, s)
	if temps := must(os.ReadDir(filepath.Join(s.cfg.Dir, "tmp")))(t); len(temps) != 0 {
		t.Errorf("left over: %v", temps)
	}
	if !s2.Has(c) || s2.Has(torn) || s2.Used() != blockSize {
		t.Errorf("whole %v, torn %v, used %d", s2.Has(c), s2.Has(torn), s2.Used())
	}
	// The pin set of the import that died is gone.
	if freed := must(s2.Collect(t.Context()))(t); freed != blockSize {
		t.Errorf("freed %d", freed)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	s := testStore(t)
	cfg := s.cfg
	cfg.LockTimeout = 1
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := testStore(t)
	s.Close()
	_, err := s.Put(t.Context(), []byte{1})
	_, err2 := s.Collect(t.Context())
	for _, err := range []error{err, err2, s.Sync(t.Context())} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}

func TestConfigFaultsAreAllReported(t *testing.T) {
	err := Config{Quota: 1, Writers: -1, SyncParallel: 1000, SyncAllAbove: -1, LockTimeout: -1, Slack: -1}.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 7 {
		t.Errorf("got %v", err)
	}
	err = ExchangeConfig{Streams: -1, Stall: 1, Holders: 100}.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) < 3 {
		t.Errorf("got %v", err)
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("a store without a directory")
	}
}

func TestCollectionIsByLastUse(t *testing.T) {
	s := testStore(t, func(c *Config) { c.Quota, c.Slack = 8*MaxChunk, 1 })
	list := fill(t, s, 1, 8, MaxChunk)
	must(s.Get(t.Context(), list[0]))(t) // used again
	if err := s.Pin("keep", list[1]); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 2, 3, MaxChunk) // pushes out two, and two again: the slack makes it one more than is needed
	for i, want := range []bool{true, true, false, false, false, false, true, true} {
		if s.Has(list[i]) != want {
			t.Errorf("chunk %d: here %v, want %v", i, s.Has(list[i]), want)
		}
	}
	if s.Used() > s.Quota() {
		t.Errorf("used %d", s.Used())
	}
}

func TestHoldAndQuota(t *testing.T) {
	s := testStore(t, func(c *Config) { c.Quota = 8 * MaxChunk })
	old := fill(t, s, 1, 2, MaxChunk)
	h := s.Hold()
	must(s.Get(t.Context(), old[0]))(t)
	held := fill(t, s, 2, 7, MaxChunk) // pushes out old[1]
	if s.Has(old[1]) || !s.Has(old[0]) {
		t.Fatal("the wrong one was collected")
	}
	var q *QuotaError
	if _, err := s.Put(t.Context(), []byte("one too many")); !errors.As(err, &q) || q.Needed != blockSize || q.Used != s.Used() {
		t.Fatalf("got %v", err)
	}
	checkHas(t, s, append(held, old[0]))
	h.Release()
	h.Release()
	must(s.Put(t.Context(), []byte("one too many")))(t)
	s.SetQuota(1)
	if _, err := s.Put(t.Context(), []byte("more")); !errors.Is(err, ErrQuota) {
		t.Fatalf("got %v", err)
	}
}

func TestPinsCoverDAGsAndSurvive(t *testing.T) {
	s := testStore(t)
	data := randomBytes(3, 3*MaxChunk+9)
	pieces, _ := importAll(t, s, Split{}, sourceFile{"f", data}) // pinned in "test"
	stray := must(s.Put(t.Context(), []byte("stray")))(t)
	s = reopen(t, s)
	must(s.Collect(t.Context()))(t)
	if s.Has(stray) || !bytes.Equal(fileBytes(t, s, pieces[0].Root), data) {
		t.Fatal("collected the wrong chunks")
	}
	var sets []string
	if err := s.PinSets(func(set string) bool { sets = append(sets, set); return true }); err != nil || len(sets) != 1 || sets[0] != "test" {
		t.Fatalf("sets %q, %v", sets, err)
	}
	n := 0
	if err := s.Pinned("test", func(c cid.Cid) bool { n++; return c.Equals(pieces[0].Root) }); err != nil || n != 1 {
		t.Fatalf("%d roots, %v", n, err)
	}
	if err := s.Pin("other", pieces[0].Root); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Unpin("test"), s.Unpin("never there"), s.UnpinRoots("never there", stray)); err != nil {
		t.Fatal(err)
	}
	if freed := must(s.Collect(t.Context()))(t); freed != 0 {
		t.Fatal("a root that another set has was collected")
	}
	if err := s.UnpinRoots("other", pieces[0].Root); err != nil {
		t.Fatal(err)
	}
	if must(s.Collect(t.Context()))(t); s.Usage().Chunks != 0 || s.Used() != 0 {
		t.Fatalf("left %+v", s.Usage())
	}
	for _, bad := range []string{"", "\x00import/x", string(make([]byte, 300))} {
		if s.Pin(bad, stray) == nil || s.Unpin(bad) == nil {
			t.Errorf("set %q was taken", bad)
		}
	}
}

// TestManyAtOnce lets everything that changes the store run at once, then compares index, account and disk.
func TestManyAtOnce(t *testing.T) {
	s := testStore(t, func(c *Config) { c.Quota, c.Slack = 4*MaxChunk, 1 })
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for i := range 200 {
				data := randomBytes(uint64((g*37+i*11)%60), 100_000)
				c, err := s.Put(context.Background(), data)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := s.Get(context.Background(), c); err == nil && !bytes.Equal(got, data) || err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("get: %v", err)
				} else if errors.Is(err, ErrCorrupt) {
					t.Errorf("a race looked like corruption: %v", err)
				}
				switch i % 5 {
				case 0:
					err = s.Delete(c)
				case 1:
					_, err = s.Collect(context.Background())
				case 2:
					err = s.Sync(context.Background())
				}
				if err != nil {
					t.Error(err)
				}
				if u := s.Usage(); u.Used > u.Quota {
					t.Errorf("%+v", u)
				}
			}
		})
	}
	wg.Wait()
	checkBooks(t, s)
}

// checkBooks compares index and account with the disk.
func checkBooks(t testing.TB, s *Store) {
	t.Helper()
	onDisk, used := 0, int64(0)
	leftovers, err := s.disk.list(func(_ key, info fileInfo) {
		onDisk++
		used += charge(int(info.size))
	})
	if u := s.Usage(); err != nil || u.Chunks != onDisk || u.Used != used || leftovers != 0 {
		t.Errorf("index has %+v, disk %d chunks of %d bytes and %d temporary files (%v)", u, onDisk, used, leftovers, err)
	}
}

func TestFileReader(t *testing.T) {
	s := testStore(t)
	data := randomBytes(5, 2*MaxChunk+1234)
	pieces, _ := importAll(t, s, Split{}, sourceFile{"f", data})
	r := must(s.FileReader(t.Context(), pieces[0].Root))(t)
	rapid.Check(t, func(rt *rapid.T) {
		off := rapid.Int64Range(0, int64(len(data))+10).Draw(rt, "offset")
		p := make([]byte, rapid.IntRange(0, MaxChunk+10).Draw(rt, "length"))
		n, err := r.ReadAt(p, off)
		want, wantErr := bytes.NewReader(data).ReadAt(append([]byte{}, p...), off)
		if n != want || (err == nil) != (wantErr == nil) || !bytes.Equal(p[:n], data[min(off, int64(len(data))):][:n]) {
			rt.Fatalf("read %d (%v), want %d (%v)", n, err, want, wantErr)
		}
		if len(p) == 0 {
			return
		}
		if at, err := r.Seek(off, 0); err != nil || at != off {
			rt.Fatal(at, err)
		}
		n, err = r.Read(p)
		if want > 0 && (n == 0 || err != nil || p[0] != data[off]) || want == 0 && err == nil {
			rt.Fatalf("Read gives %d, %v", n, err)
		}
	})
}

func TestMaterialise(t *testing.T) {
	s := testStore(t)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"empty": nil, "one": []byte("one chunk"), "many": randomBytes(6, MaxChunk+1)} {
		pieces, _ := importAll(t, s, Split{}, sourceFile{name, data})
		path := filepath.Join(dir, name)
		n, err := s.Materialise(t.Context(), pieces[0].Root, path)
		if got := must(os.ReadFile(path))(t); err != nil || n != int64(len(data)) || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if _, err := s.Materialise(t.Context(), pieces[0].Root, path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: over a file: %v", name, err)
		}
	}
	pieces, _ := importAll(t, s, Split{}, sourceFile{"hole", randomBytes(7, 2*MaxChunk)})
	if err := s.Delete(must(s.Chunks(t.Context(), pieces[0].Root))(t)[2]); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hole")
	if _, err := s.Materialise(t.Context(), pieces[0].Root, path); !errors.Is(err, ErrNotFound) {
		t.Errorf("with a hole: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file is left: %v", err)
	}
}

// TestPaths: read one after another, the chunks' files are the file; what has no files of its own is left to Materialise.
func TestPaths(t *testing.T) {
	s := testStore(t)
	for name, data := range map[string][]byte{"empty": nil, "one": []byte("one chunk"), "many": randomBytes(6, 3*MaxChunk+1)} {
		pieces, _ := importAll(t, s, Split{}, sourceFile{name, data})
		paths, ok := s.Paths(t.Context(), pieces[0].Root, 4)
		var got []byte
		for _, path := range paths {
			got = append(got, must(os.ReadFile(path))(t)...)
		}
		if !ok || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes in %d files, %v", name, len(got), len(paths), ok)
		}
	}
	pieces, _ := importAll(t, s, Split{}, sourceFile{"many", randomBytes(6, 3*MaxChunk+1)})
	if _, ok := s.Paths(t.Context(), pieces[0].Root, 3); ok {
		t.Error("more files than asked for")
	}
	node := merkledag.NodeWithData(unixfs.FilePBData([]byte("inline"), 6))
	if err := s.PutBlock(t.Context(), node.Cid(), node.RawData()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Paths(t.Context(), node.Cid(), 4); ok {
		t.Error("bytes inside a node have no file")
	}
	if err := s.Delete(must(s.Chunks(t.Context(), pieces[0].Root))(t)[2]); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Paths(t.Context(), pieces[0].Root, 4); ok {
		t.Error("a missing chunk has no file")
	}
}

// BenchmarkPut is a chunk that is new, BenchmarkPutAgain one that is there: hashed and written, or hashed alone.
func BenchmarkPut(b *testing.B) {
	s := testStore(b)
	data := randomBytes(1, MaxChunk)
	b.SetBytes(MaxChunk)
	b.ReportAllocs()
	var used time.Duration
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(data, uint64(i))
		began := cpuTime(b)
		must(s.Put(b.Context(), data))(b)
		used += cpuTime(b) - began
	}
	reportCPU(b, used, MaxChunk)
}

func BenchmarkPutAgain(b *testing.B) {
	s := testStore(b)
	data := randomBytes(1, MaxChunk)
	b.SetBytes(MaxChunk)
	b.ReportAllocs()
	for b.Loop() {
		must(s.Put(b.Context(), data))(b)
	}
}

// BenchmarkGet is a chunk that has been checked before, into a buffer of the caller's.
func BenchmarkGet(b *testing.B) {
	s := testStore(b)
	c := must(s.Put(b.Context(), randomBytes(1, MaxChunk)))(b)
	buf := make([]byte, MaxChunk)
	b.SetBytes(MaxChunk)
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		must(s.GetInto(b.Context(), c, buf))(b)
	}
	reportCPU(b, cpuTime(b)-began, MaxChunk)
}
