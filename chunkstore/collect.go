package chunkstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	bolt "go.etcd.io/bbolt"
)

// collector finds and deletes chunks that nobody needs: mark what the pin sets reach, sweep the rest in order of last use.
type collector struct {
	mu      sync.Mutex   // one collection at a time
	pinning sync.RWMutex // held by Pin (shared) and by a collection from mark to sweep
	retryAt atomic.Int64 // Unix ns before which a collection that found nothing is not repeated; 0: at once
}

// collectPause is how long a full store whose chunks are all in use fails at once instead of marking again: a mark reads
// every pin, and a peer with a full store is asked to Put all the time. Unpin, Release and SetQuota end the pause.
const collectPause = time.Second

// again lets the next Put that needs room collect at once.
func (g *collector) again() { g.retryAt.Store(0) }

// Hold protects chunks in use that are not pinned (yet): nothing that is put, got or found present after it was taken is
// collected until it is released. A fetch whose chunks are pinned later takes one. Imports hold by themselves.
type Hold struct{ s *Store }

// Hold takes a hold. Every hold must be released.
func (s *Store) Hold() *Hold {
	h := &Hold{s}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.holds[h] = s.index.clock
	return h
}

// Release ends the protection; a second call does nothing.
func (h *Hold) Release() {
	h.s.index.mu.Lock()
	defer h.s.index.mu.Unlock()
	delete(h.s.index.holds, h)
	h.s.collect.again()
}

// reserve takes n bytes of the quota, collecting when there is no room.
func (s *Store) reserve(ctx context.Context, n int64) error {
	for !s.index.reserve(n) {
		freed, err := s.makeRoom(ctx, n)
		if err != nil {
			return err
		}
		if freed == 0 && !s.index.reserve(n) {
			u := s.Usage()
			return &QuotaError{Used: u.Used, Quota: u.Quota, Needed: n}
		} else if freed == 0 {
			return nil
		}
	}
	return nil
}

// makeRoom collects so that n bytes fit, and a Slack more; 0 means that nothing could be freed.
func (s *Store) makeRoom(ctx context.Context, n int64) (freed int64, err error) {
	s.collect.mu.Lock()
	defer s.collect.mu.Unlock()
	u := s.Usage()
	missing := u.Used + n - u.Quota
	if missing <= 0 { // another caller has collected while this one waited
		return 1, nil
	}
	if n > u.Quota || time.Now().UnixNano() < s.collect.retryAt.Load() {
		return 0, nil
	}
	freed, err = s.collectLocked(ctx, missing+s.cfg.Slack)
	if freed < missing {
		s.collect.retryAt.Store(time.Now().Add(collectPause).UnixNano())
	}
	return freed, err
}

// Collect deletes every chunk that no pin set reaches and no hold protects, and returns the bytes that this gave back.
func (s *Store) Collect(ctx context.Context) (freed int64, err error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	s.collect.mu.Lock()
	defer s.collect.mu.Unlock()
	return s.collectLocked(ctx, 1<<62)
}

// collectLocked frees at least goal bytes if it can.
func (s *Store) collectLocked(ctx context.Context, goal int64) (freed int64, err error) {
	s.collect.pinning.Lock()
	defer s.collect.pinning.Unlock()
	limit := s.protectedFrom()
	pinned, err := s.mark(ctx)
	if err != nil {
		return 0, fmt.Errorf("chunkstore: collect: %w", err)
	}
	idle := func(e *entry) bool { return e.lastUse <= limit }
	deleted := 0
	for _, k := range s.victims(pinned, limit, goal) {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		n, err := s.remove(k, idle)
		if err != nil {
			return freed, fmt.Errorf("chunkstore: collect chunk %s: %w", k, err)
		}
		if n > 0 {
			deleted++
		}
		freed += n
	}
	if deleted > 0 {
		s.log.Debug("collected", "chunks", deleted, "bytes", freed)
	}
	return freed, nil
}

// protectedFrom is the use after which a chunk may not be collected now: that of the oldest hold, and that of this moment,
// because a chunk that arrives during the mark may belong to a pinned root that arrives with it.
func (s *Store) protectedFrom() uint64 {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	limit := s.index.clock
	for _, clock := range s.index.holds {
		limit = min(limit, clock)
	}
	return limit
}

// victims are the least recently used chunks that may go, of goal bytes together if there are as many.
func (s *Store) victims(pinned map[key]struct{}, limit uint64, goal int64) (list []key) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	for e := s.index.lru.next; e != &s.index.lru && e.lastUse <= limit && goal > 0; e = e.next {
		if _, ok := pinned[e.key]; !ok {
			list = append(list, e.key)
			goal -= charge(int(e.size))
		}
	}
	return list
}

// mark returns everything that the pin sets reach.
func (s *Store) mark(ctx context.Context) (map[key]struct{}, error) {
	pinned := map[key]struct{}{}
	w := walker{s: s, seen: cid.NewSet()}
	err := s.pins.View(func(tx *bolt.Tx) error {
		sets := tx.Bucket(pinsBucket)
		return sets.ForEachBucket(func(name []byte) error { return w.mark(ctx, sets.Bucket(name), pinned) })
	})
	return pinned, err
}

// mark adds what the roots of a set reach.
func (w *walker) mark(ctx context.Context, set *bolt.Bucket, pinned map[key]struct{}) error {
	add := func(c cid.Cid, _ bool) error {
		if k, inline, err := keyOf(c); err == nil && inline == nil {
			pinned[k] = struct{}{}
		}
		return nil
	}
	var walkErr error
	err := eachRoot(set, func(root cid.Cid) bool {
		if root.Type() != cid.DagProtobuf { // by far the most: no walk, no set entry
			_ = add(root, true)
			return ctx.Err() == nil
		}
		walkErr = w.walk(ctx, root, add)
		return walkErr == nil
	})
	if walkErr != nil {
		return walkErr
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

// PinnedBytes is what the chunks of a pin set take of the quota, those that other sets have too included.
func (s *Store) PinnedBytes(ctx context.Context, set string) (bytes int64, err error) {
	pinned := map[key]struct{}{}
	w := walker{s: s, seen: cid.NewSet()}
	err = s.pins.View(func(tx *bolt.Tx) error { return w.mark(ctx, tx.Bucket(pinsBucket).Bucket([]byte(set)), pinned) })
	if err != nil {
		return 0, fmt.Errorf("chunkstore: size of pin set %q: %w", set, err)
	}
	for k := range pinned {
		if size, _, ok := s.index.look(k); ok {
			bytes += charge(size)
		}
	}
	return bytes, nil
}
