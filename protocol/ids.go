package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// PeerID names one running meshd: the libp2p peer ID of its Ed25519 key.
// The empty value names nobody; as the holder of a range it means that the range has none.
type PeerID = peer.ID

// JobID names a job: the binary CID of its signed manifest.
// It is a string so that it can be a map key and has an order.
type JobID string

// ParseJobID reads the text form of a job's CID.
func ParseJobID(s string) (JobID, error) {
	c, err := cid.Decode(s)
	if err != nil {
		return "", fmt.Errorf("protocol: job ID %q: %w", s, err)
	}
	return JobIDOf(c), nil
}

// JobIDOf gives the ID of the job whose manifest has the CID c.
func JobIDOf(c cid.Cid) JobID { return JobID(c.KeyString()) }

// CID is the CID of the job's manifest, or cid.Undef where the ID is not one.
func (j JobID) CID() cid.Cid {
	c, err := cid.Cast([]byte(j))
	if err != nil {
		return cid.Undef
	}
	return c
}

func (j JobID) String() string { return j.CID().String() }

// Hash is a SHA-256 digest: of a record's signed bytes, of an input key, of a ledger.
// The zero value stands for "none".
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero tells whether h stands for "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// InputKey is the hash of what a stage reads: the roots of the seals of its source
// stages, or the manifest for a first stage. All ledger state of a stage is under it.
type InputKey = Hash

// StageIndex numbers the stages of a job from 0, in an order in which every stage
// comes after those it reads.
type StageIndex uint32

// TaskIndex numbers the tasks of a stage from 0.
type TaskIndex uint64

// BlockSize is how many consecutive tasks have one level-0 seal, and how many seals
// of one level have one of the next.
const BlockSize = 1024

// Block numbers the blocks of BlockSize consecutive tasks of a stage.
type Block uint64

// Block is the block that the task is in.
func (t TaskIndex) Block() Block { return Block(t / BlockSize) }

// Range is the tasks Lo, Lo+1, ... Hi-1 of a stage.
type Range struct{ Lo, Hi TaskIndex }

// Len is the number of tasks in r.
func (r Range) Len() uint64 { return uint64(r.Hi - r.Lo) }

// Contains tells whether r has the task t.
func (r Range) Contains(t TaskIndex) bool { return r.Lo <= t && t < r.Hi }

// Intersect is what r and o share; it is empty (Lo == Hi) where they share nothing.
func (r Range) Intersect(o Range) Range {
	x := Range{max(r.Lo, o.Lo), min(r.Hi, o.Hi)}
	if x.Hi < x.Lo {
		x.Hi = x.Lo
	}
	return x
}

func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Lo, r.Hi) }

// Range is the tasks of the block in a stage of n tasks.
func (b Block) Range(n uint64) Range {
	lo := uint64(b) * BlockSize
	return Range{TaskIndex(lo), TaskIndex(min(lo+BlockSize, n))}
}

// Blocks is the number of blocks in a stage of n tasks.
func Blocks(n uint64) uint64 { return (n + BlockSize - 1) / BlockSize }

// Epoch numbers the holdings of a task within a life: 0 is the submitter's, each
// grant, release and adoption adds one.
type Epoch uint64

// MaxEpoch bounds the epoch that a record may claim: far above what a year of
// one move a millisecond makes, far below where adding one could overflow.
const MaxEpoch Epoch = 1 << 48

// Life counts how often a task's state was reopened.
type Life uint32

// Generation is the sequence number of the owner's last retry, 0 before the first.
type Generation uint64

// Attempt counts one peer's failed attempts at a task within a generation, from 1.
type Attempt uint32

// Sequence orders what one peer says: by its start, then by a counter.
type Sequence struct{ Incarnation, Counter uint64 }

// Less tells whether s was said before o.
func (s Sequence) Less(o Sequence) bool {
	if s.Incarnation != o.Incarnation {
		return s.Incarnation < o.Incarnation
	}
	return s.Counter < o.Counter
}

// MaxGroups is the largest number of chunk groups of a job: they fit a GroupSet.
const MaxGroups = 64

// GroupSet is a set of chunk groups: bit g is group g.
type GroupSet uint64

// AllGroups is the set of the first n groups.
func AllGroups(n int) GroupSet {
	if n >= MaxGroups {
		return ^GroupSet(0)
	}
	return GroupSet(1)<<n - 1
}

// Has tells whether g is in the set.
func (s GroupSet) Has(g int) bool { return g >= 0 && g < MaxGroups && s>>g&1 == 1 }

// Len is the number of groups in the set.
func (s GroupSet) Len() int { return bits.OnesCount64(uint64(s)) }
