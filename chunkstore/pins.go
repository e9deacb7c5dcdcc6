package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	bolt "go.etcd.io/bbolt"
	bolterr "go.etcd.io/bbolt/errors"
)

// Pin sets are in a bbolt file: bucket "pins", in it a bucket a set, in it the binary CIDs of the roots as keys. Every
// change is one transaction, durable when it returns.
var pinsBucket = []byte("pins")

// importSets is the prefix of the sets of imports in progress. Those that Open finds belong to imports that died.
const importSets = "\x00import/"

// maxSetName is the longest name of a pin set, in bytes: a job's CID with a word and a number, with room to spare.
const maxSetName = 256

// pinBatch is the number of roots that one transaction copies: about 400 KB of dirty pages.
const pinBatch = 10_000

func openPins(path string, wait time.Duration) (*bolt.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	// A timeout of 0 would wait for ever.
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: max(wait, time.Millisecond), FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterr.ErrTimeout) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	if err := preparePins(db); err != nil {
		return nil, errors.Join(fmt.Errorf("pins: %w", err), db.Close())
	}
	return db, nil
}

// preparePins makes the bucket of sets at the first start, and drops the sets of imports that died. Where there is nothing to
// do it writes nothing.
func preparePins(db *bolt.DB) error {
	var dead [][]byte
	fresh := false
	if err := db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(pinsBucket)
		if fresh = b == nil; fresh {
			return nil
		}
		c := b.Cursor()
		for name, _ := c.Seek([]byte(importSets)); name != nil && strings.HasPrefix(string(name), importSets); name, _ = c.Next() {
			dead = append(dead, append([]byte{}, name...))
		}
		return nil
	}); err != nil || !fresh && len(dead) == 0 {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(pinsBucket)
		for _, name := range dead {
			err = errors.Join(err, b.DeleteBucket(name))
		}
		return err
	})
}

func checkSet(set string) error {
	if set == "" || len(set) > maxSetName || strings.HasPrefix(set, "\x00") {
		return fmt.Errorf("chunkstore: pin set %q: a name has 1 to %d bytes and does not start with a zero byte", set, maxSetName)
	}
	return nil
}

// Pin adds roots to a set, making it when it is not there. A pinned chunk is not collected, nor is anything below a
// pinned dag-pb root as far as it is here; what arrives later is covered too, so a set can be pinned before it is fetched.
// The pin itself is durable on return; the chunks are after the next Sync. Errors: ErrUnsupported, and the file system's.
func (s *Store) Pin(set string, roots ...cid.Cid) error {
	return s.PinAll(map[string][]cid.Cid{set: roots})
}

// PinAll is Pin for several sets at once, all of them or none: it costs no more than one.
func (s *Store) PinAll(sets map[string][]cid.Cid) error {
	for set, roots := range sets {
		if err := checkSet(set); err != nil {
			return err
		}
		for _, c := range roots {
			if _, _, err := keyOf(c); err != nil {
				return err
			}
		}
	}
	return s.pin(sets)
}

func (s *Store) pin(sets map[string][]cid.Cid) error {
	// A collection that has read the pin sets already must not delete what is pinned now.
	s.collect.pinning.RLock()
	defer s.collect.pinning.RUnlock()
	return s.pins.Update(func(tx *bolt.Tx) error {
		for set, roots := range sets {
			b, err := tx.Bucket(pinsBucket).CreateBucketIfNotExists([]byte(set))
			for _, c := range roots {
				if err == nil {
					err = b.Put(c.Bytes(), nil)
				}
			}
			if err != nil {
				return fmt.Errorf("chunkstore: pin set %q: %w", set, err)
			}
		}
		return nil
	})
}

// Unpin removes a whole set. A set that is not there is no error. Nothing is deleted until the quota presses or Collect
// is called.
func (s *Store) Unpin(set string) error {
	if err := checkSet(set); err != nil {
		return err
	}
	return s.unpin(set)
}

func (s *Store) unpin(set string) error {
	err := s.pins.Update(func(tx *bolt.Tx) error {
		err := tx.Bucket(pinsBucket).DeleteBucket([]byte(set))
		if errors.Is(err, bolterr.ErrBucketNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("chunkstore: unpin set %q: %w", set, err)
	}
	s.collect.again()
	return nil
}

// UnpinRoots removes single roots from a set; those that are not in it are no error.
func (s *Store) UnpinRoots(set string, roots ...cid.Cid) error {
	if err := checkSet(set); err != nil {
		return err
	}
	err := s.pins.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(pinsBucket).Bucket([]byte(set))
		if b == nil {
			return nil
		}
		for _, c := range roots {
			if err := b.Delete(c.Bytes()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("chunkstore: unpin from set %q: %w", set, err)
	}
	s.collect.again()
	return nil
}

// PinSets calls each with the name of every set, in byte order, until it returns false.
func (s *Store) PinSets(each func(set string) bool) error {
	return s.pins.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(pinsBucket).Cursor()
		for name, _ := c.First(); name != nil; name, _ = c.Next() {
			if strings.HasPrefix(string(name), importSets) {
				continue
			}
			if !each(string(name)) {
				return nil
			}
		}
		return nil
	})
}

// Pinned calls each with every root of a set, in byte order of the binary CID, until it returns false. It must not change pins.
func (s *Store) Pinned(set string, each func(cid.Cid) bool) error {
	return s.pins.View(func(tx *bolt.Tx) error {
		return eachRoot(tx.Bucket(pinsBucket).Bucket([]byte(set)), each)
	})
}

func eachRoot(b *bolt.Bucket, each func(cid.Cid) bool) error {
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for raw, _ := c.First(); raw != nil; raw, _ = c.Next() {
		id, err := cid.Cast(append([]byte{}, raw...))
		if err != nil {
			return fmt.Errorf("chunkstore: pin database: %w", err)
		}
		if !each(id) {
			return nil
		}
	}
	return nil
}

// copySet adds all roots of one set to another, in transactions of pinBatch.
func (s *Store) copySet(ctx context.Context, from, to string) error {
	var after []byte
	for {
		batch := make([]cid.Cid, 0, pinBatch)
		err := s.pins.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(pinsBucket).Bucket([]byte(from))
			if b == nil {
				return nil
			}
			c := b.Cursor()
			raw, _ := c.Seek(after)
			if after != nil {
				raw, _ = c.Next()
			}
			for ; raw != nil && len(batch) < pinBatch; raw, _ = c.Next() {
				id, err := cid.Cast(append([]byte{}, raw...))
				if err != nil {
					return fmt.Errorf("chunkstore: pin database: %w", err)
				}
				batch = append(batch, id)
			}
			return nil
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		if err := s.pin(map[string][]cid.Cid{to: batch}); err != nil {
			return err
		}
		after = batch[len(batch)-1].Bytes()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
