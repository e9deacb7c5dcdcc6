package chunkstore

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/ipfs/go-cid"
)

// MaxChunk is the largest chunk, in bytes: 1 MiB. It stays well under the 2 MiB that IPFS nodes accept, and an fsync per
// chunk still costs little at this size. It holds for DAG nodes too.
const MaxChunk = 1 << 20

// blockSize is what a chunk's size is rounded up to when it is charged against the quota: file systems hand out whole
// blocks of 4 KiB, so a quota in payload bytes would be passed on disk by a store of small chunks. It also bounds the
// index in memory: at most Quota/4096 entries of about 130 bytes, 3 % of the quota in the very worst case.
const blockSize = 4 << 10

// Config says where a store lives and what it may use.
type Config struct {
	// Dir is the directory of the store; made when it is not there. One process at a time may open it.
	Dir string
	// Quota is the most that chunk files may take on disk, in bytes, each rounded up to 4 KiB. Default 1 GiB, at least
	// 4 MiB (four chunks: less cannot even hold an import's buffers). The pin database beside them, about 80 bytes a
	// pinned root, is not counted.
	Quota int64
	// Slack is how many bytes a collection frees beyond what is needed, so that a full store does not collect at every
	// Put. Default Quota/32, range 0..Quota.
	Slack int64
	// Writers is how many chunks one import hashes and writes at a time; an import holds Writers+2 buffers of MaxChunk.
	// Default the number of CPUs but at most 4 (a disk is no faster with more), range 1..64.
	Writers int
	// SyncParallel is how many files one Sync flushes at a time: parallel fsyncs share a journal commit. Default 16,
	// range 1..256.
	SyncParallel int
	// SyncAllAbove is the number of files from which Sync flushes the whole file system by one call (Linux) instead of
	// file by file. Default 1024: fewer are done about as fast by themselves. At least 1.
	SyncAllAbove int
	// LockTimeout is how long Open waits for another process to let go of Dir. Default 2 s, at least 0 (one try).
	LockTimeout time.Duration
	// ScrubEvery is the time in which Scrub reads every chunk once. Default 30 days, at least 1 minute. The disk then reads
	// Used/ScrubEvery: of 100 GiB 40 KiB/s.
	ScrubEvery time.Duration
	// ScrubRest is how many times as long as a chunk took Scrub rests after it at least, so that it never uses more than
	// 1/(1+ScrubRest) of a CPU and of the disk's time; a store too large for that is read less often than ScrubEvery says:
	// with 10 ms a chunk, one of more than 500 GiB. Default 500, range 1..1000000.
	ScrubRest int
	// Damaged is told of every chunk that was found damaged or gone, when it is no longer in the store: by its hash, as
	// of a raw chunk. It must not wait, nor call the store. Default: nothing.
	Damaged func(cid.Cid)
	// FS is where the chunk files are; the pin database is always on the system's. Default vfs.OS.
	FS vfs.FS
	// Log receives what an operator should see: corrupted chunks, collections, leftovers of a crash. Default: discarded.
	Log *slog.Logger
}

// DefaultConfig is a store of 1 GiB in dir.
func DefaultConfig(dir string) Config {
	c := Config{Dir: dir, Quota: 1 << 30}.withDefaults()
	c.Slack = 0 // follows Quota, which the caller may change
	return c
}

// withDefaults fills what is zero. A zero Slack means the default: a store that really wants none sets 1.
func (c Config) withDefaults() Config {
	if c.Slack == 0 {
		c.Slack = c.Quota / 32
	}
	if c.Writers == 0 {
		c.Writers = min(4, runtime.GOMAXPROCS(0))
	}
	if c.SyncParallel == 0 {
		c.SyncParallel = 16
	}
	if c.SyncAllAbove == 0 {
		c.SyncAllAbove = 1024
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = 2 * time.Second
	}
	if c.ScrubEvery == 0 {
		c.ScrubEvery = 30 * 24 * time.Hour
	}
	if c.ScrubRest == 0 {
		c.ScrubRest = 500
	}
	if c.Damaged == nil {
		c.Damaged = func(cid.Cid) {}
	}
	if c.FS == nil {
		c.FS = vfs.OS{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault of the configuration at once. Fields left zero have their default.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("chunkstore: config: "+format, args...))
		}
	}
	check(c.Dir != "", "Dir is empty")
	check(c.Quota >= 4*MaxChunk, "Quota is %d bytes, less than %d", c.Quota, 4*MaxChunk)
	check(c.Slack >= 0 && c.Slack <= c.Quota, "Slack is %d, outside 0..Quota", c.Slack)
	check(c.Writers >= 1 && c.Writers <= 64, "Writers is %d, outside 1..64", c.Writers)
	check(c.SyncParallel >= 1 && c.SyncParallel <= 256, "SyncParallel is %d, outside 1..256", c.SyncParallel)
	check(c.SyncAllAbove >= 1, "SyncAllAbove is %d, less than 1", c.SyncAllAbove)
	check(c.ScrubEvery >= time.Minute, "ScrubEvery is %v, less than a minute", c.ScrubEvery)
	check(c.ScrubRest >= 1 && c.ScrubRest <= 1_000_000, "ScrubRest is %d, outside 1..1000000", c.ScrubRest)
	check(c.LockTimeout >= 0, "LockTimeout is negative")
	return errors.Join(errs...)
}
