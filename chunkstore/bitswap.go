package chunkstore

import (
	"context"
	"errors"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// newBitswap serves the store by bitswap and can fetch by it. It stores nothing by itself: what it brings is put by the
// fetch that asked for it.
func newBitswap(ctx context.Context, h host.Host, s *Store, cfg ExchangeConfig) *bitswap.Bitswap {
	return bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, s.Blockstore(),
		bitswap.WithPeerBlockRequestFilter(func(p peer.ID, _ cid.Cid) bool { return cfg.Allow(p) }),
		bitswap.WithoutDuplicatedBlockStats(),
		bitswap.MaxCidSize(maxCID),
		// Its default of 128 workers is for servers of many thousand peers; the reads are of local files.
		bitswap.EngineBlockstoreWorkerCount(8),
		// 1 MiB, the default, is one chunk and a round trip; four keep the line busy. It bounds memory per peer.
		bitswap.MaxOutstandingBytesPerPeer(4<<20),
	)
}

// Blockstore is the store as boxo's parts (bitswap, UnixFS directories) see it. A Put by it is checked as PutBlock does.
func (s *Store) Blockstore() blockstore.Blockstore { return boxoStore{s} }

type boxoStore struct{ s *Store }

var _ blockstore.Blockstore = boxoStore{}

func (b boxoStore) DeleteBlock(_ context.Context, c cid.Cid) error { return b.s.Delete(c) }

func (b boxoStore) Has(_ context.Context, c cid.Cid) (bool, error) { return b.s.Has(c), nil }

func (b boxoStore) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	data, err := b.s.Get(ctx, c)
	if err != nil {
		return nil, boxoError(c, err)
	}
	return blocks.NewBlockWithCid(data, c)
}

func (b boxoStore) GetSize(_ context.Context, c cid.Cid) (int, error) {
	size, ok := b.s.Size(c)
	if !ok {
		return -1, ipld.ErrNotFound{Cid: c}
	}
	return size, nil
}

func (b boxoStore) Put(ctx context.Context, block blocks.Block) error {
	return b.s.PutBlock(ctx, block.Cid(), block.RawData())
}

func (b boxoStore) PutMany(ctx context.Context, list []blocks.Block) error {
	for _, block := range list {
		if err := b.Put(ctx, block); err != nil {
			return err
		}
	}
	return nil
}

func (b boxoStore) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	b.s.index.mu.Lock()
	keys := make([]key, 0, len(b.s.index.entries))
	for k := range b.s.index.entries {
		keys = append(keys, k)
	}
	b.s.index.mu.Unlock()
	out := make(chan cid.Cid)
	go func() {
		defer close(out)
		for _, k := range keys {
			select {
			case out <- cidOf(cid.Raw, k):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// boxoError turns a missing chunk into the error that boxo knows.
func boxoError(c cid.Cid, err error) error {
	if errors.Is(err, ErrNotFound) {
		return ipld.ErrNotFound{Cid: c}
	}
	return err
}
