package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// askProviders is how many holders of a root are looked for in the DHT, and askNeighbours how many connected peers
	// are asked when nobody better is known: a small mesh as a whole.
	askProviders  = 8
	askNeighbours = 32
)

// content reads chunks and files, and brings those that are not here.
type content struct {
	store    *chunkstore.Store
	exchange *chunkstore.Exchange
	self     protocol.PeerID
	// providers asks the DHT who has a root; neighbours are the connected peers of the mesh.
	providers  func(ctx context.Context, c cid.Cid, want int) []protocol.PeerID
	neighbours func() []protocol.PeerID

	moved moved

	mu     sync.Mutex
	coming map[cid.Cid][]byte // blocks that the committer will store
}

// expect makes blocks readable that are on their way into the store; arrived ends that.
func (c *content) expect(blocks []job.Block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range blocks {
		c.coming[b.CID] = b.Data
	}
}

func (c *content) arrived(id cid.Cid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.coming, id)
}

// source is where the chunks of a job are to be had.
type source struct {
	job  protocol.JobID
	from []protocol.PeerID // best first

	limit uint64 // bytes that a fetch may bring; 0: the quota alone
	group int    // chunk group of the job that they are kept for
}

// local is the bytes of a chunk that is here.
func (c *content) local(ctx context.Context, id cid.Cid) ([]byte, error) {
	c.mu.Lock()
	data, ok := c.coming[id]
	c.mu.Unlock()
	if ok {
		return data, nil
	}
	return c.store.Get(ctx, id)
}

// chunk is the bytes of a chunk, from wherever it is.
func (c *content) chunk(ctx context.Context, id cid.Cid, from source) ([]byte, error) {
	if data, err := c.local(ctx, id); err == nil {
		return data, nil
	}
	if err := c.fetch(ctx, []cid.Cid{id}, from); err != nil {
		return nil, err
	}
	return c.store.Get(ctx, id)
}

// getter reads chunks for the readers of package job.
func (c *content) getter(ctx context.Context, from source) job.Getter {
	return func(id cid.Cid) ([]byte, error) { return c.chunk(ctx, id, from) }
}

// fetch returns when the files and chunks under roots are here as a whole. They are not pinned.
func (c *content) fetch(ctx context.Context, roots []cid.Cid, from source) error {
	roots = slices.DeleteFunc(slices.Clone(roots), func(root cid.Cid) bool { return c.whole(ctx, root) })
	if len(roots) == 0 {
		return nil
	}
	holders := slices.DeleteFunc(slices.Clone(from.from), func(p protocol.PeerID) bool { return p == c.self })
	opts := chunkstore.FetchOptions{Find: func(ctx context.Context, id cid.Cid) []peer.ID { return c.find(ctx, id, from) }}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var brought atomic.Uint64
	opts.Arrived = func(giver peer.ID, bytes int) {
		if from.job != "" {
			c.moved.add(from.job, giver, bytes)
		}
		if n := brought.Add(uint64(bytes)); from.limit > 0 && n > from.limit {
			cancel(errTooMuch)
		}
	}
	err := c.exchange.FetchDAG(ctx, roots, holders, opts)
	if errors.Is(context.Cause(ctx), errTooMuch) {
		return fmt.Errorf("node: fetch %s: over %d bytes: %w", roots[0], from.limit, errTooMuch)
	}
	return err
}

// errTooMuch: what was to be fetched is larger than it may be.
var errTooMuch = errors.New("too large")

// whole tells cheaply that a root is here and right, and has nothing below it. A chunk from before the start is read once: it may be damaged.
func (c *content) whole(ctx context.Context, root cid.Cid) bool {
	return root.Type() != cid.DagProtobuf && c.store.Has(root) && c.store.Verify(ctx, root) == nil
}

// find names further holders: who provides the job, which its keepers do, or the root itself; then everybody near.
func (c *content) find(ctx context.Context, id cid.Cid, from source) []protocol.PeerID {
	var found []protocol.PeerID
	if root := from.job.CID(); root.Defined() {
		found = c.providers(ctx, root, askProviders)
	}
	if len(found) == 0 {
		found = c.providers(ctx, id, askProviders)
	}
	near := c.neighbours()
	found = append(found, near[:min(len(near), askNeighbours)]...)
	return slices.DeleteFunc(found, func(p protocol.PeerID) bool { return p == c.self })
}

// program reads a program for checking: all of it, which its limit of 64 MiB allows.
func (c *content) file(ctx context.Context, root cid.Cid) ([]byte, error) {
	r, err := c.store.FileReader(ctx, root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, r.Size())
	n, err := r.ReadAt(data, 0)
	if n == len(data) {
		return data, nil
	}
	return nil, fmt.Errorf("node: read %s: %w", root, err)
}
