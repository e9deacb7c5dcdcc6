package chunkstore

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
)

// The kinds of failure that callers decide by; use errors.Is.
var (
	// ErrNotFound: the chunk is not in the store.
	ErrNotFound = errors.New("chunk not found")
	// ErrCorrupt: the chunk's file did not hold what its name says; it has been removed. It is an ErrNotFound too: who
	// handles a missing chunk by fetching it again handles this one.
	ErrCorrupt = fmt.Errorf("chunk file corrupted and removed: %w", ErrNotFound)
	// ErrQuota: the quota has no room and nothing more can be collected. The error is a *QuotaError.
	ErrQuota = errors.New("store quota reached")
	// ErrTooLarge: a chunk of more than MaxChunk bytes.
	ErrTooLarge = errors.New("larger than a chunk may be")
	// ErrUnsupported: a CID of a codec or hash that the store does not keep.
	ErrUnsupported = errors.New("unsupported CID")
	// ErrMismatch: bytes that do not hash to the CID they were given for.
	ErrMismatch = errors.New("bytes do not match the CID")
	// ErrMalformed: a DAG node that cannot be decoded, or whose sizes contradict its children.
	ErrMalformed = errors.New("malformed DAG node")
	// ErrNotFile: the root is not a file (a directory, a symbolic link).
	ErrNotFile = errors.New("not a file")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrClosed: the store, import or exchange has been closed.
	ErrClosed = errors.New("closed")
)

// QuotaError is the ErrQuota with its figures, all in bytes as charged (each chunk rounded up to 4 KiB).
type QuotaError struct {
	Used, Quota, Needed int64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("chunkstore: %v: %s needed, %s of %s used, and no chunk left that may be collected",
		ErrQuota, humanize.IBytes(uint64(e.Needed)), humanize.IBytes(uint64(e.Used)), humanize.IBytes(uint64(e.Quota)))
}

// Is makes a QuotaError an ErrQuota.
func (e *QuotaError) Is(target error) bool { return target == ErrQuota }
