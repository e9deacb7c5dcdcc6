package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/internal/vfs/vfstest"
	"github.com/ipfs/go-cid"
)

// tracedDisk is a file system that writes down what is done to it, and fails where it is told to.
type tracedDisk struct {
	vfstest.Faults
	mu    sync.Mutex
	trace []string
	fail  func(op string) error
}

// newTrace names operations by the chunk or the shard that they are about; what is not told apart below is left out.
func newTrace(dir string) *tracedDisk {
	d := &tracedDisk{Faults: vfstest.Faults{FS: vfs.OS{}}}
	chunks := filepath.Join(dir, chunksDir)
	d.Hook(func(_ int, op vfstest.Op, path string) error {
		name := filepath.Base(path)
		switch {
		case op == vfstest.OpWrite:
			return d.do("write")
		case op == vfstest.OpRename:
			return d.do("name " + name[:4])
		case op == vfstest.OpSync && filepath.Dir(path) == chunks:
			return d.do("sync dir " + name)
		case op == vfstest.OpSync && filepath.Dir(filepath.Dir(path)) == chunks:
			return d.do("sync " + name[:4])
		case op == vfstest.OpSyncAll:
			return d.do("sync all")
		}
		return nil
	})
	return d
}

func (d *tracedDisk) do(op string) error {
	d.mu.Lock()
	fail := d.fail
	d.mu.Unlock()
	if fail != nil {
		if err := fail(op); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace = append(d.trace, op)
	return nil
}

func (d *tracedDisk) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.trace
	d.trace = nil
	return out
}

func tracedStore(t *testing.T, change func(*Config)) (*Store, *tracedDisk) {
	t.Helper()
	cfg := DefaultConfig(t.TempDir())
	change(&cfg)
	d := newTrace(cfg.Dir)
	cfg.FS = d
	s := must(Open(cfg))(t)
	t.Cleanup(func() { s.Close() })
	return s, d
}

func name4(c cid.Cid) string {
	k, _, _ := keyOf(c)
	return k.String()[:4]
}

func TestSyncFlushesFilesAndDirectories(t *testing.T) {
	s, d := tracedStore(t, func(c *Config) { c.SyncParallel = 4 })
	list := fill(t, s, 1, 10, 100)
	d.take()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	trace := d.take()
	for _, c := range list {
		file, dir := slices.Index(trace, "sync "+name4(c)), slices.Index(trace, "sync dir "+name4(c)[:2])
		if file < 0 || dir < 0 {
			t.Errorf("chunk %s: file synced at %d, its directory at %d of %q", name4(c), file, dir, trace)
		}
	}
	if err := s.Sync(t.Context()); err != nil || len(d.take()) != 0 {
		t.Errorf("a second sync does something: %v", err)
	}
	// A Put of what is there but was never synced by this process must be covered.
	must(s.Put(t.Context(), []byte("new")))(t)
	if err := s.Sync(t.Context()); err != nil || len(d.take()) != 4 {
		t.Errorf("sync after one Put: %v", err)
	}
}

func TestSyncAfterRestartCoversOldChunks(t *testing.T) {
	s, _ := tracedStore(t, func(*Config) {})
	c := must(s.Put(t.Context(), []byte("put, not synced, then killed")))(t)
	s.index.takeDirty() // as if the process died: Close finds nothing to sync
	s.Close()
	d := newTrace(s.cfg.Dir)
	s.cfg.FS = d
	s = must(Open(s.cfg))(t)
	defer s.Close()
	must(s.Put(t.Context(), []byte("put, not synced, then killed")))(t)
	if err := s.Sync(t.Context()); err != nil || !slices.Contains(d.take(), "sync "+name4(c)) {
		t.Errorf("the chunk from before was not synced: %v", err)
	}
}

func TestSyncManyAtOnce(t *testing.T) {
	s, d := tracedStore(t, func(c *Config) { c.SyncAllAbove = 5 })
	fill(t, s, 1, 5, 10)
	d.take()
	if err := s.Sync(t.Context()); err != nil || !slices.Equal(d.take(), []string{"sync all"}) {
		t.Errorf("%v", err)
	}
}

// TestFailedSyncWritesAfresh: after a failed flush the same file must not be trusted to a second flush.
func TestFailedSyncWritesAfresh(t *testing.T) {
	for _, all := range []int{1, 100} {
		s, d := tracedStore(t, func(c *Config) { c.SyncAllAbove = all })
		c := must(s.Put(t.Context(), []byte("precious")))(t)
		broken := errors.New("input/output error")
		d.fail = func(op string) error {
			if op == "sync all" || op == "sync "+name4(c) {
				return broken
			}
			return nil
		}
		if err := s.Sync(t.Context()); !errors.Is(err, broken) {
			t.Fatalf("got %v", err)
		}
		d.mu.Lock()
		d.fail = nil
		d.mu.Unlock()
		d.take()
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		trace := d.take()
		write, named := slices.Index(trace, "write"), slices.Index(trace, "name "+name4(c))
		if write < 0 || named < write || len(trace) <= named+1 {
			t.Errorf("the second sync did %q", trace)
		}
		if err := s.Verify(t.Context(), c); err != nil {
			t.Error(err)
		}
		checkBooks(t, s)
	}
}

// TestPutFailures: whatever fails, nothing is left behind and nothing is charged.
func TestPutFailures(t *testing.T) {
	s, d := tracedStore(t, func(*Config) {})
	full := errors.New("no space left on device")
	for _, bad := range []string{"write", "name"} {
		d.fail = func(op string) error {
			if op[:4] == bad[:4] {
				return full
			}
			return nil
		}
		if _, err := s.Put(t.Context(), []byte(bad)); !errors.Is(err, full) {
			t.Errorf("%s: %v", bad, err)
		}
		checkBooks(t, s)
	}
	d.fail = nil
	must(s.Put(t.Context(), []byte("goes on")))(t)
}

// TestSyncsShareRounds: callers that come while a round runs are all served by the next one.
func TestSyncsShareRounds(t *testing.T) {
	s, d := tracedStore(t, func(*Config) {})
	first := must(s.Put(t.Context(), []byte("first")))(t)
	running, goOn := make(chan struct{}), make(chan struct{})
	d.fail = func(op string) error {
		if op == "sync "+name4(first) {
			close(running)
			<-goOn
		}
		return nil
	}
	errs := make(chan error, 9)
	go func() { errs <- s.Sync(context.Background()) }()
	<-running
	second := must(s.Put(t.Context(), []byte("second")))(t)
	for range 8 {
		go func() { errs <- s.Sync(context.Background()) }()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	close(goOn)
	for range 9 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	n := 0
	for _, op := range d.take() {
		if op == "sync "+name4(second) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the second chunk was synced %d times", n)
	}
}

// TestImportIsFlushedMeanwhile: the disk begins before the import ends, and a failure of it then is nothing that the
// import has to do with.
func TestImportIsFlushedMeanwhile(t *testing.T) {
	s, d := tracedStore(t, func(*Config) {})
	begun := make(chan struct{})
	once := sync.OnceFunc(func() { close(begun) })
	d.fail = func(op string) error {
		if strings.HasPrefix(op, "sync") {
			once()
			return errors.New("the disk is full of holes")
		}
		return nil
	}
	im := must(s.NewImport(Split{}, nil))(t)
	defer im.Drop()
	if err := im.Add(t.Context(), "text", bytes.NewReader(randomBytes(1, importSync))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("nothing was flushed")
	}
	if _, err := im.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
}
