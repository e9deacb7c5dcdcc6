package chunkstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/ipfs/go-cid"
	bolt "go.etcd.io/bbolt"
)

// Store holds chunks in files. Its methods may be called from any goroutine; after Close they fail.
type Store struct {
	cfg     Config
	log     *slog.Logger
	disk    disk
	index   *index
	shards  [256]sync.Mutex // guard the files of a shard against the index: held while a name appears or goes
	pins    *bolt.DB
	syncer  syncer
	collect collector
	health  health
	closed  atomic.Bool
}

type foundChunk struct {
	key key
	fileInfo
}

// Open opens the store in cfg.Dir, making it when it is not there, and removes what a crash left half-written. It reads
// the names and sizes of all chunks, not their contents.
func Open(cfg Config) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d := disk{cfg.FS, cfg.Dir}
	s := &Store{cfg: cfg, log: cfg.Log, disk: d, index: newIndex(cfg.Quota)}
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("chunkstore: open: %w", err)
	}
	if s.pins, err = openPins(filepath.Join(cfg.Dir, "pins.db"), cfg.LockTimeout); err != nil {
		return nil, fmt.Errorf("chunkstore: open %s: %w", cfg.Dir, err)
	}
	var found []foundChunk
	var removed []key
	leftovers, err := d.list(func(k key, info fileInfo) {
		// A torn write often leaves an empty or oversize file: seen here without reading anything.
		if info.size > MaxChunk || info.size == 0 && k != sha256.Sum256(nil) {
			removed = append(removed, k)
			return
		}
		found = append(found, foundChunk{k, info})
	})
	for _, k := range removed {
		err = errors.Join(err, d.remove(k))
	}
	if err != nil {
		return nil, fmt.Errorf("chunkstore: open %s: %w", cfg.Dir, errors.Join(err, s.pins.Close()))
	}
	if leftovers+len(removed) > 0 {
		s.log.Info("removed what a crash left behind", "temporary", leftovers, "torn", len(removed))
	}
	s.index.load(found)
	return s, nil
}

// Close closes the store; readers and imports must have been closed before. It does not sync: what others rely on has been
// synced when they were told, and a peer that shuts down has no time to flush what it could fetch again.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.syncer.mu.Lock()   // no round begins after this
	s.syncer.mu.Unlock() //lint:ignore SA2001 passing through the lock is the point
	s.syncer.rounds.Wait()
	return s.pins.Close()
}

func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("chunkstore: store: %w", ErrClosed)
	}
	return ctx.Err()
}

// Put stores data as a raw chunk and returns its name. It does not keep data. Of a chunk that is there already it costs
// the hash alone. Errors: ErrTooLarge, ErrQuota, and those of the file system.
func (s *Store) Put(ctx context.Context, data []byte) (cid.Cid, error) {
	k, err := s.putBytes(ctx, data)
	if err != nil {
		return cid.Undef, err
	}
	return cidOf(cid.Raw, k), nil
}

// putBytes hashes and stores data.
func (s *Store) putBytes(ctx context.Context, data []byte) (key, error) {
	if len(data) > MaxChunk {
		return key{}, fmt.Errorf("chunkstore: put %d bytes: %w", len(data), ErrTooLarge)
	}
	k := key(sha256.Sum256(data))
	return k, s.putVerified(ctx, k, data)
}

// PutBlock stores data under the name c, of codec raw, dag-pb or dag-cbor. It does not keep data. Errors beyond those of
// Put: ErrMismatch when the data do not hash to c, ErrUnsupported.
func (s *Store) PutBlock(ctx context.Context, c cid.Cid, data []byte) error {
	k, err := check(c, data)
	if err != nil || c.Hash()[0] == hashIdentity {
		return err
	}
	return s.putVerified(ctx, k, data)
}

// check says whether data are the block that c names.
func check(c cid.Cid, data []byte) (key, error) {
	k, inline, err := keyOf(c)
	switch {
	case err != nil:
		return k, err
	case len(data) > MaxChunk:
		return k, fmt.Errorf("chunkstore: chunk %s of %d bytes: %w", c, len(data), ErrTooLarge)
	case inline != nil && !bytes.Equal(inline, data), inline == nil && sha256.Sum256(data) != k:
		return k, fmt.Errorf("chunkstore: chunk %s: %w", c, ErrMismatch)
	}
	return k, nil
}

// putVerified stores data that are known to hash to k.
func (s *Store) putVerified(ctx context.Context, k key, data []byte) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if s.present(k) {
		return nil
	}
	room := charge(len(data))
	if err := s.reserve(ctx, room); err != nil {
		return err
	}
	temp, err := s.disk.writeTemp(data)
	added := false
	if err == nil {
		added, err = s.place(temp, k, len(data))
	}
	if !added {
		err = errors.Join(err, s.discard(temp, room))
	}
	if err != nil {
		return fmt.Errorf("chunkstore: write chunk %s: %w", k, err)
	}
	return nil
}

// discard removes a temporary file, if there is one, and gives back its room: not before, nor where it can't be removed, for
// then it takes room until the next Open.
func (s *Store) discard(temp string, room int64) error {
	if temp != "" {
		if err := s.disk.removeTemp(temp); err != nil {
			return err
		}
	}
	s.index.unreserve(room)
	return nil
}

// place gives a written file its name and its entry; added is false when another writer was first.
func (s *Store) place(temp string, k key, size int) (added bool, err error) {
	s.shards[k[0]].Lock()
	defer s.shards[k[0]].Unlock()
	if _, _, ok := s.index.use(k); ok {
		return false, nil
	}
	if err := s.disk.commit(temp, k); err != nil {
		return false, err
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.insert(k, size, true)
	return true, nil
}

// present says whether k is there and right, and marks it as used. A chunk from before the restart is read and hashed
// first: to take a torn file for the data that the caller holds would lose them.
func (s *Store) present(k key) bool {
	_, verified, ok := s.index.use(k)
	if !ok || verified {
		return ok
	}
	return s.verify(k) == nil
}

// Get returns the chunk's bytes, which are the caller's. Errors: ErrNotFound, ErrCorrupt, ErrUnsupported.
func (s *Store) Get(ctx context.Context, c cid.Cid) ([]byte, error) { return s.GetInto(ctx, c, nil) }

// GetInto is Get into buf when its capacity is large enough.
func (s *Store) GetInto(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	k, inline, err := keyOf(c)
	if err != nil {
		return nil, err
	}
	if inline != nil {
		return inline, nil
	}
	if _, _, ok := s.index.use(k); !ok {
		return nil, fmt.Errorf("chunkstore: chunk %s: %w", c, ErrNotFound)
	}
	data, err := s.read(k, buf)
	if err != nil {
		return nil, fmt.Errorf("chunkstore: chunk %s: %w", c, err)
	}
	return data, nil
}

// read reads a whole chunk, and checks it unless it has been checked before. It leaves the order of use alone.
func (s *Store) read(k key, buf []byte) ([]byte, error) {
	f, size, verified, err := s.openFile(k)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(f, buf); err != nil {
		if _, err = f.ReadAt(buf, 0); err != nil { // a disk that fails twice has lost it
			return nil, s.corrupt(k, err)
		}
	}
	if verified {
		return buf, nil
	}
	if sha256.Sum256(buf) != k {
		return nil, s.corrupt(k, ErrMismatch)
	}
	s.index.setVerified(k)
	return buf, nil
}

// openFile opens the file of a chunk. A file that is not there or has the wrong size costs the chunk its entry.
func (s *Store) openFile(k key) (f vfs.File, size int, verified bool, err error) {
	// Under the shard's lock entry and file belong together; what is open stays readable when the chunk is deleted.
	s.shards[k[0]].Lock()
	size, verified, ok := s.index.look(k)
	if !ok {
		s.shards[k[0]].Unlock()
		return nil, 0, false, ErrNotFound
	}
	f, err = s.disk.open(k)
	s.shards[k[0]].Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, false, s.corrupt(k, err)
	}
	if err != nil {
		return nil, 0, false, err // too many open files, for one: says nothing about the chunk
	}
	info, err := f.Stat()
	if err == nil && info.Size() != int64(size) {
		f.Close()
		return nil, 0, false, s.corrupt(k, fmt.Errorf("%d bytes instead of %d", info.Size(), size))
	}
	if err != nil {
		f.Close()
		return nil, 0, false, err
	}
	return f, size, verified, nil
}

// verify reads a chunk to check it.
func (s *Store) verify(k key) error {
	if _, verified, ok := s.index.look(k); ok && verified {
		return nil
	}
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	_, err := s.read(k, buf[:])
	return err
}

// chunkBuffers are buffers of a whole chunk; whoever takes one is limited by a limit of its own.
var chunkBuffers = sync.Pool{New: func() any { return new([MaxChunk]byte) }}

// corrupt removes a chunk whose file is not what it should be.
func (s *Store) corrupt(k key, cause error) error {
	freed, err := s.remove(k, nil)
	if err != nil {
		s.log.Error("corrupted chunk could not be removed", "chunk", k.String(), "error", err)
	}
	if freed > 0 { // else another has found it
		s.log.Warn("corrupted chunk removed", "chunk", k.String(), "cause", cause)
		s.health.damaged.Add(1)
		s.cfg.Damaged(cidOf(cid.Raw, k))
	}
	return fmt.Errorf("%w (%v)", ErrCorrupt, cause)
}

// Has says whether the chunk is in the store. A chunk from before the last restart may still turn out to be corrupted
// when it is first read; Verify settles it.
func (s *Store) Has(c cid.Cid) bool {
	_, ok := s.Size(c)
	return ok
}

// Size is the chunk's length in bytes, if it is in the store.
func (s *Store) Size(c cid.Cid) (int, bool) {
	k, inline, err := keyOf(c)
	if err != nil {
		return 0, false
	}
	if inline != nil {
		return len(inline), true
	}
	size, _, ok := s.index.look(k)
	return size, ok
}

// Verify makes sure that the chunk is in the store and right, reading it if this process has not done so before. A keeper
// calls it before it signs for a chunk that it had when it started. Errors as of Get.
func (s *Store) Verify(ctx context.Context, c cid.Cid) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	k, inline, err := keyOf(c)
	if err != nil || inline != nil {
		return err
	}
	if err := s.verify(k); err != nil {
		return fmt.Errorf("chunkstore: chunk %s: %w", c, err)
	}
	return nil
}

// Path is the file of a chunk that is there and right, for reading without a copy; it must never be written to. The file
// may be collected at any time unless the chunk is pinned or under a Hold; who has it open keeps it.
func (s *Store) Path(c cid.Cid) (string, bool) {
	k, inline, err := keyOf(c)
	if err != nil || inline != nil || !s.present(k) {
		return "", false
	}
	return s.disk.path(k), true
}

// Delete removes the chunk, pinned or not. Deleting a chunk that is not there is no error.
func (s *Store) Delete(c cid.Cid) error {
	k, inline, err := keyOf(c)
	if err != nil || inline != nil {
		return err
	}
	if _, err := s.remove(k, nil); err != nil {
		return fmt.Errorf("chunkstore: delete chunk %s: %w", c, err)
	}
	return nil
}

// remove deletes a chunk for which may, asked under the index's lock, says yes (nil always does), and returns the bytes
// that this gives back. The entry goes first, so that no Put takes a chunk for present whose file is about to go; its
// charge goes last, so that used never falls short of the disk.
func (s *Store) remove(k key, may func(*entry) bool) (freed int64, err error) {
	s.shards[k[0]].Lock()
	defer s.shards[k[0]].Unlock()
	s.index.mu.Lock()
	e := s.index.entries[k]
	ok := e != nil && (may == nil || may(e))
	if ok {
		s.index.detach(e)
	}
	s.index.mu.Unlock()
	if !ok {
		return 0, nil
	}
	err = s.disk.remove(k)
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.index.insert(k, int(e.size), false)
		return 0, err
	}
	s.index.used -= charge(int(e.size))
	return charge(int(e.size)), nil
}

// Usage is the state of the store.
type Usage struct {
	Chunks int   // number of chunks
	Used   int64 // bytes charged, reservations of writes in progress included
	Quota  int64 // bytes
}

// Usage returns the state of the store.
func (s *Store) Usage() Usage {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return Usage{Chunks: len(s.index.entries), Used: s.index.used, Quota: s.index.quota}
}

// Used is the number of bytes charged against the quota.
func (s *Store) Used() int64 { return s.Usage().Used }

// Quota is the hard limit, in bytes.
func (s *Store) Quota() int64 { return s.Usage().Quota }

// SetQuota changes the hard limit, in bytes. Of a store that is over it nothing is deleted at once; the next Put
// collects, and fails while what is pinned is over the limit.
func (s *Store) SetQuota(quota int64) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.quota = max(quota, 0)
	s.collect.again()
}
