package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// batch is what the machine owes that must be done in order: it is made durable as a whole, then sent as a whole.
type batch struct {
	persist  []market.Entry
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
	journal interface{ Append([]market.Entry) error }
	quota   int64 // of the store, its reserve included

	arrived  func(cid.Cid) // a block is in the store
	send     func(market.Envelope)
	announce func(market.Announce)
	changed  func([]protocol.JobID)
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

// do stores blocks, makes them durable where something refers to them, then journals, then sends: an entry in the
// journal never says that this peer has what it has not.
func (c *diskCommitter) do(b *batch) error {
	ctx := context.Background() // a commit that has begun ends: the disk has its own ways to fail
	for _, block := range b.blocks {
		if err := c.store(ctx, block); err != nil {
			return err
		}
	}
	if b.sync {
		if err := c.pins.flush(); err != nil {
			return err
		}
		if err := c.chunks.Sync(ctx); err != nil {
			return fmt.Errorf("node: commit: %w", err)
		}
	}
	if len(b.persist) > 0 {
		if err := c.journal.Append(b.persist); err != nil {
			return err
		}
	}
	for i := range b.send {
		c.send(b.send[i])
	}
	for _, d := range b.drop {
		if err := c.pins.drop(d); err != nil {
			return err
		}
	}
	for i := range b.announce {
		c.announce(b.announce[i])
	}
	if len(b.changed) > 0 {
		c.changed(b.changed)
	}
	return nil
}

func (c *diskCommitter) store(ctx context.Context, block ownedBlock) error {
	hold := c.pins.hold()
	err := c.chunks.PutBlock(ctx, block.CID, block.Data)
	if errors.Is(err, chunkstore.ErrQuota) {
		c.chunks.SetQuota(c.quota)
		err = c.chunks.PutBlock(ctx, block.CID, block.Data)
	}
	if err != nil {
		hold.Release()
		return fmt.Errorf("node: commit: %w", err)
	}
	for _, id := range block.jobs {
		c.pins.add(id, nil, block.CID)
	}
	c.pins.release(hold)
	c.arrived(block.CID)
	return nil
}
