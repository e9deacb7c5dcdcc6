package chunkstore

import (
	"context"
	"errors"
	"sync"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// bitswapProtocols are the versions of bitswap that are served.
var bitswapProtocols = []protocol.ID{
	bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers,
}

// swapper is bitswap from the moment on that somebody wants it: an IPFS node that opens a stream, or a fetch. boxo's looks ten
// times a second whether there is anything to do, which is three quarters of what an idle peer costs. It is the host that
// bitswap sees, whose handlers for streams are called once it runs.
type swapper struct {
	host.Host
	begin func() *bitswap.Bitswap

	mu       sync.Mutex
	running  *bitswap.Bitswap // nil until it is wanted
	closed   bool
	handlers map[protocol.ID]network.StreamHandler // set while it begins, under mu
}

func newSwapper(ctx context.Context, h host.Host, s *Store, cfg ExchangeConfig) *swapper {
	w := &swapper{Host: h, handlers: map[protocol.ID]network.StreamHandler{}}
	w.begin = func() *bitswap.Bitswap { return newBitswap(ctx, w, s, cfg) }
	for _, id := range bitswapProtocols {
		h.SetStreamHandler(id, w.serve)
	}
	return w
}

// SetStreamHandler is called by bitswap as it begins.
func (w *swapper) SetStreamHandler(id protocol.ID, f network.StreamHandler) { w.handlers[id] = f }

// serve hands a stream to bitswap.
func (w *swapper) serve(s network.Stream) {
	w.get()
	w.mu.Lock()
	f := w.handlers[s.Protocol()]
	w.mu.Unlock()
	if f == nil {
		_ = s.Reset()
		return
	}
	f(s)
}

// get begins bitswap, if it does not run; nil: it is closed.
func (w *swapper) get() *bitswap.Bitswap {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil && !w.closed {
		w.running = w.begin()
	}
	return w.running
}

// peek is bitswap; nil: it does not run.
func (w *swapper) peek() *bitswap.Bitswap {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}

// close ends bitswap for good.
func (w *swapper) close() error {
	for _, id := range bitswapProtocols {
		w.Host.RemoveStreamHandler(id)
	}
	w.mu.Lock()
	b := w.running
	w.running, w.closed = nil, true
	clear(w.handlers)
	w.mu.Unlock()
	if b == nil {
		return nil
	}
	return b.Close()
}

// newBitswap serves the store by bitswap and can fetch by it. It stores nothing by itself: what it brings is put by the
// fetch that asked for it.
func newBitswap(ctx context.Context, h host.Host, s *Store, cfg ExchangeConfig) *bitswap.Bitswap {
	return bitswap.New(ctx, bsnet.NewFromIpfsHost(h, bsnet.SupportedProtocols(bitswapProtocols)), nil, s.Blockstore(),
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
