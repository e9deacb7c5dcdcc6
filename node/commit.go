package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

// batch is what the machine owes that must be done in order: it is made durable as a whole, then sent as a whole.
type batch struct {
	persist  []market.Entry
	snapshot []market.Entry // all that the journal needs to hold, persist included; nil: it is not to be rewritten
	blocks   []ownedBlock
	sync     bool
	send     []market.Envelope
	announce []market.Announce
	drop     []market.Drop
	changed  []protocol.JobID
	waiting  []chan<- error // told when the batch is durable and sent, or why not
	bytes    int            // about what it holds
}

// ownedBlock is a chunk to store and the jobs that it is kept for.
type ownedBlock struct {
	job.Block
	jobs []protocol.JobID
}

// envelopeBytes is about what a message in a queue takes besides the records in it.
const envelopeBytes = 256

// add appends what must be done in order of e.
func (b *batch) add(e market.Effects) {
	b.persist = append(b.persist, e.Persist...)
	b.send = append(b.send, e.Send...)
	b.announce = append(b.announce, e.Announce...)
	b.drop = append(b.drop, e.Drop...)
	b.changed = append(b.changed, e.Changed...)
	b.sync = b.sync || e.Sync
	if len(e.Blocks) > 0 {
		jobs := jobsOf(e)
		for _, block := range e.Blocks {
			b.blocks = append(b.blocks, ownedBlock{block, jobs})
			b.bytes += len(block.Data)
		}
	}
	for i := range e.Persist {
		b.bytes += len(e.Persist[i].Data)
	}
	b.bytes += envelopeBytes * len(e.Send)
}

func (b *batch) empty() bool {
	return len(b.persist) == 0 && len(b.blocks) == 0 && !b.sync && len(b.send) == 0 &&
		len(b.announce) == 0 && len(b.drop) == 0 && len(b.changed) == 0 && len(b.waiting) == 0
}

// answer tells those who wait how the batch ended.
func (b *batch) answer(err error) {
	for _, w := range b.waiting {
		w <- err
	}
	b.waiting = nil
}

// jobsOf lists the jobs that effects are about. The blocks among them are kept for all of these: effects do not say
// which block is whose, and a chunk kept for one job too many is dropped when the last of them goes.
func jobsOf(e market.Effects) []protocol.JobID {
	seen := make(map[protocol.JobID]bool)
	var jobs []protocol.JobID
	add := func(id protocol.JobID) {
		if id != "" && !seen[id] {
			seen[id] = true
			jobs = append(jobs, id)
		}
	}
	for i := range e.Persist {
		add(e.Persist[i].Job)
	}
	for i := range e.Send {
		add(jobOfMessage(e.Send[i].Message))
	}
	for _, id := range e.Changed {
		add(id)
	}
	return jobs
}

// jobOfMessage is the job that a message is about, or none.
func jobOfMessage(m protocol.Message) protocol.JobID {
	switch m := m.(type) {
	case *protocol.News:
		return m.Job
	case *protocol.ReceiptRequest:
		return m.Job
	case *protocol.ReceiptAnswer:
		return m.Job
	case *protocol.Stored:
		return m.Job
	}
	return ""
}

// committer makes batches durable and then sends them.
type committer interface {
	// do returns when the batch is durable and what it sends is in the queues. An error ends the node.
	do(*batch) error
}

// diskCommitter is the committer of a running node.
type diskCommitter struct {
	chunks  chunks
	pins    *pins
	journal entryLog
	quota   atomic.Int64    // of the store, its reserve included
	closing <-chan struct{} // closed when the node closes: no more waiting for room
	log     *slog.Logger
	full    atomic.Pointer[error] // why it waits for room; nil: it does not

	arrived  func(cid.Cid) // a block is in the store
	send     func(market.Envelope)
	announce func(market.Announce)
	changed  func([]protocol.JobID)
}

// entryLog is what a commit needs of the journal.
type entryLog interface {
	Append([]market.Entry) error
	Compact([]market.Entry) error
}

// chunks is what a commit needs of the chunk store.
type chunks interface {
	PutBlock(ctx context.Context, c cid.Cid, data []byte) error
	Sync(ctx context.Context) error
	SetQuota(bytes int64)
}

// reserveOf is the part of a store's quota that is kept for what the machine itself has to store, pages and seals: with
// a store that is full of other chunks it can still say what it knows. It is some hundred pages, at most an eighth.
func reserveOf(quota int64) int64 { return min(64<<20, quota/8) }

// roomEvery is how often a commit is tried again that had no room.
const roomEvery = time.Second

// noRoom tells whether an error says that the disk or the store is full, which may pass.
func noRoom(err error) bool { return vfs.IsFull(err) || errors.Is(err, chunkstore.ErrQuota) }

// do carries out a batch. While there is no room for it, it waits: what was said before stands, nothing new leaves this peer,
// which others soon take for gone, and with the room it goes on where it was.
func (c *diskCommitter) do(b *batch) error {
	for {
		err := c.try(b)
		if !noRoom(err) {
			c.full.Store(nil)
			return err
		}
		if c.full.Swap(&err) == nil {
			c.log.Error("no room for what this peer has to remember: it waits until there is some", "error", err)
		}
		select {
		case <-time.After(roomEvery):
		case <-c.closing:
			return err
		}
	}
}

// waits is the error of a full disk, while a commit waits for it to pass.
func (c *diskCommitter) waits() error {
	if err := c.full.Load(); err != nil {
		return *err
	}
	return nil
}

// try stores blocks, makes them durable where something refers to them, then journals, then sends: an entry in the journal never
// says that this peer has what it has not. What is done is taken out of the batch, so that after an error it can be tried again.
func (c *diskCommitter) try(b *batch) error {
	ctx := context.Background() // a commit that has begun ends: the disk has its own ways to fail
	for len(b.blocks) > 0 {
		if err := c.store(ctx, b.blocks[0]); err != nil {
			return err
		}
		b.blocks = b.blocks[1:]
	}
	if b.sync {
		if err := durable(ctx, c.pins, c.chunks); err != nil {
			return fmt.Errorf("node: commit: %w", err)
		}
		b.sync = false
	}
	if err := c.write(b); err != nil {
		return err
	}
	for i := range b.send {
		c.send(b.send[i])
	}
	b.send = nil
	for len(b.drop) > 0 {
		if err := c.pins.drop(b.drop[0]); err != nil {
			return err
		}
		b.drop = b.drop[1:]
	}
	for i := range b.announce {
		c.announce(b.announce[i])
	}
	if len(b.changed) > 0 {
		c.changed(b.changed)
	}
	return nil
}

// durable returns when all that was stored, and the pins that were added, are on the disk. The two are flushed at the same
// time: neither refers to the other, and together they share the file system's own commits.
func durable(ctx context.Context, p *pins, c chunks) error {
	var g errgroup.Group
	g.Go(p.flush)
	g.Go(func() error { return c.Sync(ctx) })
	return g.Wait()
}

// write journals what the batch persists.
func (c *diskCommitter) write(b *batch) error {
	if b.snapshot != nil {
		err := c.journal.Compact(b.snapshot)
		b.snapshot = nil
		if !vfs.IsFull(err) { // else the old journal stands, and goes on
			b.persist = nil
			return err
		}
	}
	if len(b.persist) > 0 {
		if err := c.journal.Append(b.persist); err != nil {
			return err
		}
		b.persist = nil
	}
	return nil
}

func (c *diskCommitter) store(ctx context.Context, block ownedBlock) error {
	hold := c.pins.hold()
	err := c.chunks.PutBlock(ctx, block.CID, block.Data)
	if errors.Is(err, chunkstore.ErrQuota) {
		c.chunks.SetQuota(c.quota.Load())
		err = c.chunks.PutBlock(ctx, block.CID, block.Data)
	}
	if err != nil {
		hold.Release()
		return fmt.Errorf("node: commit: %w", err)
	}
	for _, id := range block.jobs {
		c.pins.add(setOf(id), nil, block.CID)
	}
	c.pins.release(hold)
	c.arrived(block.CID)
	return nil
}
