package chunkstore

import (
	"bytes"
	"slices"
	"sync"
)

// index is what the store knows of its chunks, in memory: who is there, how large, and the order of last use. It also
// keeps the account of the quota, so that a reservation and the entry it becomes are never out of step.
type index struct {
	mu      sync.Mutex
	entries map[key]*entry
	lru     entry  // head of the ring: lru.next is the least recently used, lru.prev the most
	clock   uint64 // number of uses so far
	used    int64  // bytes charged: entries and reservations
	quota   int64
	dirty   []*entry // put, or found at Open, since the last sync; may name entries that are gone
	holds   map[*Hold]uint64
}

// entry is one chunk. All fields are guarded by index.mu.
type entry struct {
	key        key
	prev, next *entry
	lastUse    uint64 // value of index.clock
	size       int32
	verified   bool // its file has been read and hashed, or written, by this process
	dirty      bool // it is in index.dirty
	rewrite    bool // a flush of it failed: the system may have dropped the pages, so only a new file can be trusted
	gone       bool // no longer in the index
}

func newIndex(quota int64) *index {
	x := &index{entries: map[key]*entry{}, quota: quota, holds: map[*Hold]uint64{}}
	x.lru.prev, x.lru.next = &x.lru, &x.lru
	return x
}

// charge is what a chunk of the size takes of the quota; an empty file still takes an inode.
func charge(size int) int64 {
	return max(1, (int64(size)+blockSize-1)/blockSize) * blockSize
}

// load fills an empty index with what was found on disk, oldest first. All of it counts as not yet synced.
func (x *index) load(found []foundChunk) {
	slices.SortFunc(found, func(a, b foundChunk) int { return a.modified.Compare(b.modified) })
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range found {
		x.used += charge(int(f.size))
		x.insert(f.key, int(f.size), false)
	}
}

// insert adds a chunk whose charge is already in used.
func (x *index) insert(k key, size int, verified bool) {
	e := &entry{key: k, size: int32(size), verified: verified, dirty: true}
	x.entries[k] = e
	if len(x.dirty) >= 2*len(x.entries)+1024 { // mostly entries that are gone: a store that is never synced stays bounded
		x.dirty = slices.DeleteFunc(x.dirty, func(e *entry) bool { return e.gone })
	}
	x.dirty = append(x.dirty, e)
	x.toFront(e)
}

// toFront makes e the most recently used.
func (x *index) toFront(e *entry) {
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.prev, e.next = x.lru.prev, &x.lru
	e.prev.next, e.next.prev = e, e
	x.clock++
	e.lastUse = x.clock
}

// detach takes an entry out of the index. Its charge stays until the file is gone too.
func (x *index) detach(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	e.gone = true
	delete(x.entries, e.key)
}

// use looks a chunk up and marks it as used now.
func (x *index) use(k key) (size int, verified, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[k]
	if e == nil {
		return 0, false, false
	}
	x.toFront(e)
	return int(e.size), e.verified, true
}

// look looks a chunk up and leaves the order of use alone.
func (x *index) look(k key) (size int, verified, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[k]
	if e == nil {
		return 0, false, false
	}
	return int(e.size), e.verified, true
}

// shard lists the chunks of a shard, in order.
func (x *index) shard(n byte) (keys []key) {
	x.mu.Lock()
	for k := range x.entries {
		if k[0] == n {
			keys = append(keys, k)
		}
	}
	x.mu.Unlock()
	slices.SortFunc(keys, func(a, b key) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// setVerified remembers that the file of k has been read and found right.
func (x *index) setVerified(k key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[k]; e != nil {
		e.verified = true
	}
}

// reserve takes n bytes of the quota if they are there.
func (x *index) reserve(n int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.used+n > x.quota {
		return false
	}
	x.used += n
	return true
}

func (x *index) unreserve(n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.used -= n
}

// takeDirty returns the entries to sync, each once, and marks them clean.
func (x *index) takeDirty() []*entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := x.dirty[:0]
	for _, e := range x.dirty {
		if e.gone || !e.dirty {
			continue
		}
		e.dirty = false
		list = append(list, e)
	}
	x.dirty = nil
	return list
}

// putBack makes entries dirty again after a sync failed for them.
func (x *index) putBack(failed []*entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range failed {
		if e.gone || e.dirty {
			continue
		}
		e.dirty, e.rewrite = true, true
		x.dirty = append(x.dirty, e)
	}
}
