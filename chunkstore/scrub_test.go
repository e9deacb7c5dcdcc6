package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
)

// damages is what a store was told to be damaged.
type damages struct {
	mu   sync.Mutex
	list []cid.Cid
}

func (d *damages) add(c cid.Cid) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, c)
}

func (d *damages) all() []cid.Cid {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

// flip changes one bit of a chunk's file.
func flip(t *testing.T, s *Store, c cid.Cid) {
	t.Helper()
	path, ok := s.Path(c)
	if !ok {
		t.Fatalf("%s is not here", c)
	}
	data := must(os.ReadFile(path))(t)
	data[len(data)/2] ^= 1
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A file that rots after it was checked, and one that goes, are found within ScrubEvery, dropped, and told of; the others stay.
func TestScrubFindsDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told damages
		s := testStore(t, func(c *Config) { c.ScrubEvery, c.Damaged = 24*time.Hour, told.add })
		var chunks []cid.Cid
		for i := range 60 {
			chunks = append(chunks, must(s.Put(t.Context(), randomBytes(uint64(i), 5000)))(t))
		}
		flip(t, s, chunks[7])
		if _, err := s.Get(t.Context(), chunks[7]); err != nil {
			t.Fatalf("a chunk that was checked is checked again at each read: %v", err)
		}
		path, _ := s.Path(chunks[8])
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.Scrub(ctx); close(ended) }()
		time.Sleep(25 * time.Hour)
		if got := told.all(); len(got) != 2 || !slices.Contains(got, chunks[7]) || !slices.Contains(got, chunks[8]) {
			t.Errorf("told of %v, want %v", got, chunks[7:9])
		}
		if h := s.Health(); h.Damaged != 2 || h.Scrubbed < 60 || h.Scrubbed > 64 {
			t.Errorf("%+v", h)
		}
		for i, c := range chunks {
			if want := i != 7 && i != 8; s.Has(c) != want {
				t.Errorf("chunk %d is here: %v", i, !want)
			}
		}
		stop()
		<-ended
	})
}

// The scrub goes on after a restart where it was: with a peer that is on for a quarter of a pass at a time, four starts make one.
func TestScrubGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		open := func() *Store {
			cfg := DefaultConfig(dir)
			cfg.ScrubEvery = 24 * time.Hour
			return must(Open(cfg))(t)
		}
		s := open()
		var chunks []cid.Cid
		for i := range 400 {
			chunks = append(chunks, must(s.Put(t.Context(), randomBytes(uint64(i), 100)))(t))
		}
		bad := slices.SortedFunc(slices.Values(chunks), func(a, b cid.Cid) int { return bytes.Compare(a.Hash(), b.Hash()) })[20:]
		bad = []cid.Cid{bad[0], bad[120], bad[240], bad[360]}
		for _, c := range bad {
			flip(t, s, c)
		}
		for start := range 5 {
			ctx, stop := context.WithTimeout(t.Context(), 6*time.Hour)
			s.Scrub(ctx)
			stop()
			if start == 0 && (s.Has(bad[0]) || !s.Has(bad[3])) {
				t.Error("a quarter of a pass is not its first quarter")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
		}
		for i, c := range bad {
			if s.Has(c) {
				t.Errorf("damaged chunk %d was not looked at", i)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// The rest after a chunk is the longer of its share of a pass and ScrubRest times what it took.
func TestScrubPace(t *testing.T) {
	s := testStore(t, func(c *Config) { c.ScrubEvery, c.ScrubRest = 1000*time.Second, 500 })
	if got := s.scrubPace(0); got != 1000*time.Second {
		t.Errorf("an empty store: %v", got)
	}
	for i := range 10 {
		must(s.Put(t.Context(), []byte{byte(i)}))(t)
	}
	for _, c := range []struct{ took, want time.Duration }{
		{0, 100 * time.Second}, {200 * time.Millisecond, 100 * time.Second}, {time.Second, 500 * time.Second},
	} {
		if got := s.scrubPace(c.took); got != c.want {
			t.Errorf("after %v: %v, want %v", c.took, got, c.want)
		}
	}
}

// Who needs a chunk: each root that has it, at any depth and by either codec, also when its own node is what is gone.
func TestPinsOf(t *testing.T) {
	s := testStore(t)
	pieces, _ := importAll(t, s, Split{Kind: SplitNone}, sourceFile{"a", randomBytes(1, 3*MaxChunk)})
	file := pieces[0].Root
	alone := must(s.Put(t.Context(), []byte("alone")))(t)
	if err := s.Pin("one", alone); err != nil {
		t.Fatal(err)
	}
	leaf := must(s.Put(t.Context(), randomBytes(1, 3*MaxChunk)[:MaxChunk]))(t)
	of := func(c cid.Cid) (list []string) {
		t.Helper()
		if err := s.PinsOf(t.Context(), []cid.Cid{c}, func(set string, root cid.Cid) { list = append(list, set+" "+root.String()) }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, c := range []struct {
		chunk cid.Cid
		want  []string
	}{
		{alone, []string{"one " + alone.String()}},
		{leaf, []string{"test " + file.String()}},
		{cid.NewCidV1(cid.Raw, file.Hash()), []string{"test " + file.String()}},
		{cidOf(cid.Raw, key{}), nil},
	} {
		if got := of(c.chunk); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.chunk, got, c.want)
		}
	}
	for set, want := range map[string]int64{"one": blockSize, "test": 3*MaxChunk + blockSize, "none": 0} {
		if got := must(s.PinnedBytes(t.Context(), set))(t); got != want {
			t.Errorf("set %s has %d bytes, want %d", set, got, want)
		}
	}
	if err := s.Delete(file); err != nil {
		t.Fatal(err)
	}
	if got := of(file); len(got) != 1 {
		t.Errorf("a file whose root is gone: %v", got)
	}
}
