package chunkstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/internal/vfs/vfstest"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The pin sets are bbolt's, which does not go through the file system that fails here: pins_test.go is about them.

// promised is what a store has said to be durable, and not let go of since: roots and the bytes under them.
type promised map[cid.Cid][]byte

// check reads everything that was promised.
func (p promised) check(t *testing.T, s *Store) {
	t.Helper()
	for root, want := range p {
		r, err := s.FileReader(t.Context(), root)
		if err != nil {
			t.Fatalf("promised and lost: %v", err)
		}
		var got bytes.Buffer
		if _, err := r.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("promised and changed: %s: %v", root, err)
		}
	}
}

// work does everything that a store does to its files, and stops at the first error. What is promised is in p at every moment.
func work(s *Store, p promised, seed uint64) error {
	ctx := context.Background()
	set := fmt.Sprint("set ", seed)
	small := map[cid.Cid][]byte{}
	for i := range uint64(3) {
		data := randomBytes(10*seed+i, 500)
		c, err := s.Put(ctx, data)
		if err != nil {
			return err
		}
		small[c] = data
		if err := s.Pin(set, c); err != nil {
			return err
		}
	}
	if err := s.Sync(ctx); err != nil {
		return err
	}
	for c, data := range small {
		p[c] = data
	}
	data := randomBytes(1000+seed, MaxChunk+5000)
	file, err := s.ImportFile(ctx, set+" file", "f", bytes.NewReader(data))
	if err != nil {
		return err
	}
	if err := s.Sync(ctx); err != nil {
		return err
	}
	p[file.Root] = data
	if _, err := s.Put(ctx, randomBytes(2000+seed, 700)); err != nil {
		return err
	}
	delete(p, file.Root)
	if err := s.Unpin(set + " file"); err != nil {
		return err
	}
	if _, err := s.Collect(ctx); err != nil {
		return err
	}
	return s.Sync(ctx)
}

// readAll reads every chunk: what is served is what its name says.
func readAll(t *testing.T, s *Store) {
	t.Helper()
	var keys []key
	s.index.mu.Lock()
	for k := range s.index.entries {
		keys = append(keys, k)
	}
	s.index.mu.Unlock()
	for _, k := range keys {
		data, err := s.Get(t.Context(), cidOf(cid.Raw, k))
		if err == nil && sha256.Sum256(data) != k {
			t.Fatalf("chunk %s: served with other bytes", k)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// The two ways of a Sync.
func fileByFile(*Config)  {}
func allAtOnce(c *Config) { c.SyncAllAbove = 1 }

// faultyStore is a store in memory whose pins are in dir.
func faultyStore(t *testing.T, dir string, fsys vfs.FS, change func(*Config)) (*Store, error) {
	t.Helper()
	cfg := DefaultConfig(dir)
	cfg.Quota, cfg.Slack = 8<<20, 1
	change(&cfg)
	cfg.FS = fsys
	s, err := Open(cfg)
	if err == nil {
		s.pins.NoSync = true // they are not what fails here
	}
	return s, err
}

// TestFaultAtEveryOperation: whichever operation fails, the error says so, nothing promised is lost, and when the disk works
// again the same store goes on, its books in order.
func TestFaultAtEveryOperation(t *testing.T) {
	for _, test := range []struct {
		cause   error
		lasting bool
		change  func(*Config)
	}{
		{syscall.ENOSPC, false, fileByFile},
		{syscall.EIO, true, fileByFile},
		{syscall.EIO, false, allAtOnce},
	} {
		t.Run(fmt.Sprint(test.cause, " ", test.lasting), func(t *testing.T) {
			dir := t.TempDir()
			for k, over := 0, false; !over; k += stride() {
				f := &vfstest.Faults{FS: vfstest.New()}
				s := must(faultyStore(t, dir, f, test.change))(t)
				from := f.Ops()
				f.FailAt(from+k, test.cause, test.lasting)
				p := promised{}
				err := work(s, p, 0)
				over = f.Ops() <= from+k
				if err != nil && !errors.Is(err, test.cause) || over && (err != nil || k < 20) {
					t.Fatalf("operation %d: %v", k, err)
				}
				f.Hook(nil)
				p.check(t, s)
				if err := work(s, p, 1); err != nil {
					t.Fatalf("operation %d: the disk works again, the store does not: %v", k, err)
				}
				p.check(t, s)
				readAll(t, s)
				if !test.lasting { // else a file that could not be removed is left to the next start
					checkBooks(t, s)
				}
				if err := forget(s); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// forget ends a store of work, whose pins the next one of the directory does not want.
func forget(s *Store) error {
	return errors.Join(s.Unpin("set 0"), s.Unpin("set 1"), s.Unpin("set 0 file"), s.Unpin("set 1 file"), s.Close())
}

// TestPowerLossAtEveryOperation: whenever the power goes, the store opens, and has all that it promised.
func TestPowerLossAtEveryOperation(t *testing.T) {
	for name, change := range map[string]func(*Config){"file by file": fileByFile, "all at once": allAtOnce} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for k, over := 0, false; !over; k += stride() {
				d := vfstest.New()
				f := &vfstest.Faults{FS: d}
				if err := d.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if _, err := d.SyncAll(dir); err != nil { // the store's own directory is its maker's to sync
					t.Fatal(err)
				}
				s := must(faultyStore(t, dir, f, change))(t)
				from := f.Ops()
				f.FailAt(from+k, vfstest.ErrOff, true)
				p := promised{}
				said := work(s, p, 0)
				over = f.Ops() <= from+k
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				after := must(faultyStore(t, dir, d.Crash(uint64(k)), change))(t)
				p.check(t, after)
				readAll(t, after)
				checkBooks(t, after)
				if err := work(after, p, 1); err != nil {
					t.Fatalf("after a power loss at operation %d (%v): %v", k, said, err)
				}
				if err := forget(after); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// stride is the step from one failing operation to the next. With -short, as under the race detector, which learns little
// from what one goroutine does over and over, it is every eleventh.
func stride() int {
	if testing.Short() {
		return 11
	}
	return 1
}

// TestOpenFaults: a start that fails in whatever it does to the disk has done no harm.
func TestOpenFaults(t *testing.T) {
	dir := t.TempDir()
	f := &vfstest.Faults{FS: vfstest.New()}
	s := must(faultyStore(t, dir, f, fileByFile))(t)
	p := promised{}
	if err := errors.Join(work(s, p, 0), s.Close()); err != nil {
		t.Fatal(err)
	}
	for k := 0; ; k += 7 * stride() { // most of them are two for each of 256 directories
		from := f.Ops()
		f.FailAt(from+k, syscall.EIO, false)
		s, err := faultyStore(t, dir, f, fileByFile)
		over := f.Ops() <= from+k
		f.Hook(nil)
		if err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d: %v", k, err)
			}
			s = must(faultyStore(t, dir, f, fileByFile))(t)
		}
		p.check(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if over {
			return
		}
	}
}

// TestFetchFaults: a fetch whose chunks can't be stored says why, and goes on where it was.
func TestFetchFaults(t *testing.T) {
	holder := newMesher(t, noBitswap)
	data := randomBytes(3, MaxChunk+100)
	pieces, _ := importAll(t, holder.store, Split{}, sourceFile{"f", data})
	host := newHost(t)
	connect(t, host, holder.host)
	dir := t.TempDir()
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for k := 0; ; k++ {
			f := &vfstest.Faults{FS: vfstest.New()}
			s := must(faultyStore(t, dir, f, fileByFile))(t)
			x := must(NewExchange(host, s, ExchangeConfig{NoBitswap: true}))(t)
			from := f.Ops()
			f.FailAt(from+k, cause, true)
			fetch := func() error {
				return x.FetchDAG(t.Context(), []cid.Cid{pieces[0].Root}, []peer.ID{holder.host.ID()}, FetchOptions{})
			}
			err := fetch()
			over := f.Ops() <= from+k
			if err != nil && !errors.Is(err, cause) {
				t.Fatalf("operation %d: %v", k, err)
			}
			f.Hook(nil)
			if err := fetch(); err != nil {
				t.Fatalf("operation %d: the disk works again: %v", k, err)
			}
			promised{pieces[0].Root: data}.check(t, s)
			if err := errors.Join(x.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
			if over {
				break
			}
		}
	}
}

// TestQuotaHoldsAtEveryMoment: what the store's files take is never more than the quota: in a full store that imports, fetches,
// collects and writes afresh what could not be flushed.
func TestQuotaHoldsAtEveryMoment(t *testing.T) {
	dir := t.TempDir()
	d := vfstest.New()
	f := &vfstest.Faults{FS: d}
	s := must(faultyStore(t, dir, f, fileByFile))(t)
	defer s.Close()
	holder := newMesher(t, noBitswap)
	x := must(NewExchange(newHost(t), s, ExchangeConfig{NoBitswap: true}))(t)
	defer x.Close()
	connect(t, x.host, holder.host)
	list := fill(t, holder.store, 1, 30, 900_000)
	if err := x.Fetch(t.Context(), list, []peer.ID{holder.host.ID()}, FetchOptions{}); !errors.Is(err, ErrQuota) {
		t.Errorf("a fetch of three times the quota: %v", err)
	}
	for seed := range uint64(4) { // each in the place of the one before
		if _, err := s.ImportFile(t.Context(), fmt.Sprint(seed), "f", bytes.NewReader(randomBytes(seed, 6<<20))); err != nil {
			t.Fatal(err)
		}
		if seed == 2 {
			broken := true
			f.Hook(func(_ int, op vfstest.Op, path string) error {
				if op == vfstest.OpSync && broken {
					return syscall.EIO
				}
				return nil
			})
			if err := s.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
				t.Fatalf("a sync on a broken disk: %v", err)
			}
			f.Hook(nil)
			if err := s.Sync(t.Context()); err != nil {
				t.Fatalf("what was not flushed, written afresh: %v", err)
			}
		}
		if err := s.Unpin(fmt.Sprint(seed)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.ImportFile(t.Context(), "too much", "f", bytes.NewReader(randomBytes(9, 9<<20))); !errors.Is(err, ErrQuota) {
		t.Errorf("an import larger than the quota: %v", err)
	}
	if peak := d.Peak(); peak > s.Quota() || peak < s.Quota()*3/4 {
		t.Errorf("%d bytes were on the disk at once, with a quota of %d", peak, s.Quota())
	}
	checkBooks(t, s)
}

// TestDiskThatComesFreeAgain: a disk smaller than the quota fills up in the middle of an import; what others hold is not
// touched, and when there is room the same import goes through.
func TestDiskThatComesFreeAgain(t *testing.T) {
	d := vfstest.New()
	s := must(faultyStore(t, t.TempDir(), d, fileByFile))(t)
	defer s.Close()
	p := promised{}
	if err := work(s, p, 0); err != nil {
		t.Fatal(err)
	}
	d.SetSize(d.Used() + MaxChunk)
	data := randomBytes(5, 3*MaxChunk)
	_, err := s.ImportFile(t.Context(), "large", "f", bytes.NewReader(data))
	if !vfs.IsFull(err) {
		t.Fatalf("an import into a full disk: %v", err)
	}
	p.check(t, s)
	checkBooks(t, s)
	d.SetSize(0)
	piece, err := s.ImportFile(t.Context(), "large", "f", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	p[piece.Root] = data
	p.check(t, s)
	checkBooks(t, s)
}
