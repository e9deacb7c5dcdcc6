package chunkstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	bolt "go.etcd.io/bbolt"
)

// scrubAtMost is the longest rest between two chunks: a store of few is scrubbed more often than it has to be, which costs
// nothing, so that one that fills up is not late.
const scrubAtMost = time.Hour

// shardCount is the number of shards, in which a pass of the scrub counts.
const shardCount = 256

// scrubBucket is the bucket of the pin database that says, at scrubNext, with which shard the scrub goes on after a restart.
var scrubBucket, scrubNext = []byte("scrub"), []byte("next")

// health counts what was found when chunk files were looked at.
type health struct {
	scrubbed, damaged atomic.Uint64
}

// Health is what the store has found of its files since Open.
type Health struct {
	Scrubbed uint64 // chunks that Scrub has read, and found right or damaged
	Damaged  uint64 // chunks that were damaged or gone when something looked at them, and are in the store no more
}

// Health returns the counters.
func (s *Store) Health() Health {
	return Health{Scrubbed: s.health.scrubbed.Load(), Damaged: s.health.damaged.Load()}
}

// Scrub reads the chunks, one at a time and over and over, and compares them with their names, until ctx ends. What is damaged
// is dropped as it is when a read finds it, and Config.Damaged is told. Between two chunks it rests for Config.ScrubEvery
// divided by the number of chunks, but at least Config.ScrubRest times as long as the chunk took. A pass goes on after a
// restart where it was, give or take 1/256 of the store.
func (s *Store) Scrub(ctx context.Context) {
	rest := time.NewTimer(s.scrubPace(0))
	defer rest.Stop()
	wait := func(took time.Duration) bool {
		rest.Reset(s.scrubPace(took))
		select {
		case <-rest.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for shard := s.scrubbedTo(); wait(0); shard = 0 {
		for ; shard < shardCount; shard++ {
			keys := s.index.shard(byte(shard))
			for _, k := range keys {
				began := time.Now()
				s.scrub(k)
				if !wait(time.Since(began)) {
					return
				}
			}
			if len(keys) > 0 {
				s.scrubbedUntil(shard + 1)
			}
		}
	}
}

// scrubPace is how long the scrub rests after a chunk that it took so long for.
func (s *Store) scrubPace(took time.Duration) time.Duration {
	each := s.cfg.ScrubEvery / time.Duration(max(1, s.Usage().Chunks))
	return max(min(each, scrubAtMost), took*time.Duration(s.cfg.ScrubRest))
}

// scrub checks one chunk, whether it was checked before or not.
func (s *Store) scrub(k key) {
	f, size, _, err := s.openFile(k)
	if err != nil {
		if errors.Is(err, ErrCorrupt) {
			s.health.scrubbed.Add(1)
		}
		return
	}
	defer f.Close()
	s.health.scrubbed.Add(1)
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	if _, err := io.ReadFull(f, buf[:size]); err != nil {
		if _, err = f.ReadAt(buf[:size], 0); err != nil {
			_ = s.corrupt(k, err)
			return
		}
	}
	if sha256.Sum256(buf[:size]) != k {
		_ = s.corrupt(k, ErrMismatch)
		return
	}
	s.index.setVerified(k)
}

// scrubbedTo is the shard that the scrub goes on with.
func (s *Store) scrubbedTo() (shard int) {
	err := s.pins.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(scrubBucket); b != nil {
			if at := b.Get(scrubNext); len(at) == 1 {
				shard = int(at[0])
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("the scrub begins at the first chunk", "error", err)
	}
	return shard
}

// scrubbedUntil remembers the shard that the scrub goes on with. Where it can't, a restart costs the pass so far.
func (s *Store) scrubbedUntil(shard int) {
	err := s.pins.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(scrubBucket)
		if err != nil {
			return err
		}
		return b.Put(scrubNext, []byte{byte(shard % shardCount)})
	})
	if err != nil {
		s.log.Warn("how far the scrub is can't be remembered", "error", err)
	}
}

// PinsOf calls each with every pinned root under which one of the chunks is, whatever the codec that they are named by, and
// with the root's set. A node of a file that is not here hides what is below it.
func (s *Store) PinsOf(ctx context.Context, chunks []cid.Cid, each func(set string, root cid.Cid)) error {
	wanted := make(map[key]bool, len(chunks))
	for _, c := range chunks {
		k, _, err := keyOf(c)
		if err != nil {
			return err
		}
		wanted[k] = true
	}
	err := s.pins.View(func(tx *bolt.Tx) error {
		sets := tx.Bucket(pinsBucket)
		return sets.ForEachBucket(func(name []byte) (walkErr error) {
			err := eachRoot(sets.Bucket(name), func(root cid.Cid) bool {
				var hit bool
				if hit, walkErr = s.reaches(ctx, root, wanted); hit {
					each(string(name), root)
				}
				return walkErr == nil
			})
			return errors.Join(walkErr, err)
		})
	})
	if err != nil {
		return fmt.Errorf("chunkstore: pins of %d chunks: %w", len(chunks), err)
	}
	return nil
}

// reaches tells whether one of the wanted chunks is a root or below it.
func (s *Store) reaches(ctx context.Context, root cid.Cid, wanted map[key]bool) (hit bool, err error) {
	look := func(c cid.Cid, _ bool) error {
		if k, inline, err := keyOf(c); err == nil && inline == nil && wanted[k] {
			hit = true
			return errStopWalk
		}
		return nil
	}
	if root.Type() != cid.DagProtobuf {
		err = look(root, true)
	} else {
		err = (&walker{s: s, seen: cid.NewSet()}).walk(ctx, root, look)
	}
	if errors.Is(err, errStopWalk) {
		err = nil
	}
	return hit, err
}

// errStopWalk ends a walk that has found what it looked for.
var errStopWalk = errors.New("found")
