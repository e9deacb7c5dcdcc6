package protocol

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// Seen is a Verifier that remembers signatures that were good, so that a record that
// comes again, as most do when keepers exchange whole states, costs a hash (about 1 us)
// and not a verification (about 50 us). It remembers the newest limit to 2 x limit ones,
// at about 50 bytes each.
type Seen struct {
	next  Verifier
	limit int

	mu         sync.Mutex
	young, old map[Hash]struct{}
}

// NewSeen remembers what next (nil: Ed25519) found good. limit is at least 1; for a peer,
// about the records of the largest ledgers it keeps.
func NewSeen(next Verifier, limit int) *Seen {
	return &Seen{next: Codec{next}.verifier(), limit: max(limit, 1), young: make(map[Hash]struct{})}
}

// Verify is that of the Verifier that s was made with.
func (s *Seen) Verify(signer PeerID, message, signature []byte) bool {
	key := seenKey(signer, message, signature)
	if s.has(key) {
		return true
	}
	if !s.next.Verify(signer, message, signature) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(key)
	return true
}

func (s *Seen) has(key Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.young[key]; ok {
		return true
	}
	_, ok := s.old[key]
	if ok {
		s.add(key)
	}
	return ok
}

// add remembers key; a full young generation becomes the old one. mu is held.
func (s *Seen) add(key Hash) {
	if len(s.young) >= s.limit {
		s.old, s.young = s.young, make(map[Hash]struct{}, s.limit)
	}
	s.young[key] = struct{}{}
}

func seenKey(signer PeerID, message, signature []byte) Hash {
	b := make([]byte, 0, len(signature)+len(signer)+len(message)+16)
	b = binary.BigEndian.AppendUint64(b, uint64(len(signer)))
	b = append(b, signer...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(signature)))
	b = append(b, signature...)
	b = append(b, message...)
	return sha256.Sum256(b)
}
