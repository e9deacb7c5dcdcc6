package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ExchangeConfig limits what an exchange serves and fetches. Zero fields have their default.
type ExchangeConfig struct {
	// Allow says whether a peer is served. Default: every peer that is connected. It is called for each request
	// and must not block.
	Allow func(peer.ID) bool
	// Streams and StreamsPerPeer limit the streams that are served at a time, each of which has a buffer of 128 KiB.
	// Defaults 256 (32 MiB of buffers) and 32, ranges 1..4096 and 1..Streams. Beyond them the answer is "busy".
	Streams, StreamsPerPeer int
	// StreamsTo is how many streams to one holder are used at a time, of all fetches together; more fetches take turns.
	// Default 16, half of what a holder serves: a restart must not find the places of the last run taken. Range 1..1024.
	StreamsTo int
	// ServeIdle ends a served stream without requests, or whose asker takes nothing. Default 60 s, at least 1 s.
	ServeIdle time.Duration
	// Window is how many bytes of chunks may be on their way from a stream to the disk, of all fetches together.
	// Default 16 MiB, at least MaxChunk.
	Window int64
	// Pipeline is how many requests one holder has before it at most (see Overtake). Default 16: at 1 MiB a chunk it covers 1 Gbit/s
	// over 130 ms. Range 1..1024.
	Pipeline int
	// Holders is how many holders one fetch asks at a time; further ones wait in reserve. Default 8, range 1..64.
	Holders int
	// MaxChunks is how many chunks one fetch may come to, about 200 bytes of memory each. Default 2^18 (256 GiB of full
	// chunks, 52 MB), at least 1.
	MaxChunks int
	// Stall is how long a holder may go without any progress before it is dropped. Default 5 s, at least 10 ms.
	Stall time.Duration
	// MinRate, in bytes/s, is the least that a holder must manage over one chunk, Stall apart; it ends holders that
	// drip. Default 16 KiB/s, at least 1.
	MinRate int64
	// Overtake is how long a holder that has nothing else to do waits before it asks for a chunk that another has been
	// asked for. Default 500 ms, at least 1 ms. Too little fetches chunks twice, too much waits for slow holders. Requests
	// are sent ahead only as far as they are answered within half of it.
	Overtake time.Duration
	// DialTimeout bounds the opening of a stream, a dial included. Default 10 s, at least 10 ms.
	DialTimeout time.Duration
	// StreamIdle is how long a stream is kept for the next fetch from the same holder. Default 20 s; it should be less
	// than the ServeIdle of others.
	StreamIdle time.Duration
	// BitswapWait is how long a chunk is waited for by bitswap after the holders have been tried. Default 5 s.
	BitswapWait time.Duration
	// PackLocal compresses also what goes to peers on this machine, which costs more than it saves. Default: only what leaves it.
	PackLocal bool
	// NoBitswap leaves bitswap out: neither served nor used.
	NoBitswap bool
	// Log receives lies and absences of holders, and refused streams. Default: discarded.
	Log *slog.Logger
}

func (c ExchangeConfig) withDefaults() ExchangeConfig {
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	setTime := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	setInt(&c.Streams, 256)
	setInt(&c.StreamsPerPeer, min(32, c.Streams))
	setInt(&c.StreamsTo, 16)
	setInt(&c.Pipeline, 16)
	setInt(&c.Holders, 8)
	setInt(&c.MaxChunks, 1<<18)
	setTime(&c.ServeIdle, time.Minute)
	setTime(&c.Stall, 5*time.Second)
	setTime(&c.Overtake, 500*time.Millisecond)
	setTime(&c.DialTimeout, 10*time.Second)
	setTime(&c.StreamIdle, 20*time.Second)
	setTime(&c.BitswapWait, 5*time.Second)
	if c.Window == 0 {
		c.Window = 16 << 20
	}
	if c.MinRate == 0 {
		c.MinRate = 16 << 10
	}
	if c.Allow == nil {
		c.Allow = func(peer.ID) bool { return true }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault of the configuration at once.
func (c ExchangeConfig) Validate() error {
	c = c.withDefaults()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("chunkstore: exchange config: "+format, args...))
		}
	}
	check(c.Streams >= 1 && c.Streams <= 4096, "Streams is %d, outside 1..4096", c.Streams)
	check(c.StreamsPerPeer >= 1 && c.StreamsPerPeer <= c.Streams, "StreamsPerPeer is %d, outside 1..Streams", c.StreamsPerPeer)
	check(c.StreamsTo >= 1 && c.StreamsTo <= 1024, "StreamsTo is %d, outside 1..1024", c.StreamsTo)
	check(c.ServeIdle >= time.Second, "ServeIdle is %v, less than 1s", c.ServeIdle)
	check(c.Window >= MaxChunk, "Window is %d bytes, less than one chunk", c.Window)
	check(c.Pipeline >= 1 && c.Pipeline <= 1024, "Pipeline is %d, outside 1..1024", c.Pipeline)
	check(c.Holders >= 1 && c.Holders <= 64, "Holders is %d, outside 1..64", c.Holders)
	check(c.MaxChunks >= 1, "MaxChunks is %d, less than 1", c.MaxChunks)
	check(c.Stall >= 10*time.Millisecond, "Stall is %v, less than 10ms", c.Stall)
	check(c.MinRate >= 1, "MinRate is %d, less than 1", c.MinRate)
	check(c.Overtake >= time.Millisecond, "Overtake is %v, less than 1ms", c.Overtake)
	check(c.DialTimeout >= 10*time.Millisecond, "DialTimeout is %v, less than 10ms", c.DialTimeout)
	check(c.StreamIdle > 0, "StreamIdle is %v", c.StreamIdle)
	check(c.BitswapWait > 0, "BitswapWait is %v", c.BitswapWait)
	return errors.Join(errs...)
}

// Exchange moves chunks between the store and other peers: by ProtocolID for bulk, by bitswap for IPFS nodes.
type Exchange struct {
	cfg   ExchangeConfig
	log   *slog.Logger
	host  host.Host
	store *Store
	stats stats
	swap  *swapper // nil with NoBitswap

	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // streams served and fetches
	window chan struct{}  // a token for every MaxChunk of Window

	mu      sync.Mutex
	closed  bool
	served  map[network.Stream]struct{} // streams being served
	serving map[peer.ID]int             // their number by peer
	idle    map[peer.ID]*holderStream   // kept for the next fetch
	claims  map[key]*claim              // chunks being asked for
	away    map[peer.ID]absence         // holders that could not be reached
	using   map[peer.ID]int             // streams to holders in use
	left    chan struct{}               // closed and replaced when one is no longer
}

// NewExchange starts to serve the store's chunks on the host. The host is the caller's, and is closed after the exchange.
func NewExchange(h host.Host, s *Store, cfg ExchangeConfig) (*Exchange, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	x := &Exchange{
		cfg: cfg, log: cfg.Log, host: h, store: s,
		window:  make(chan struct{}, cfg.Window/MaxChunk),
		served:  map[network.Stream]struct{}{},
		serving: map[peer.ID]int{},
		idle:    map[peer.ID]*holderStream{},
		claims:  map[key]*claim{},
		away:    map[peer.ID]absence{},
		using:   map[peer.ID]int{},
		left:    make(chan struct{}),
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	if !cfg.NoBitswap {
		x.swap = newSwapper(x.ctx, h, s, cfg)
	}
	h.SetStreamHandler(ProtocolID, x.serve)
	h.SetStreamHandler(ProtocolV1, x.serve)
	return x, nil
}

// Close ends all transfers and waits for them. Fetches in progress fail with ErrClosed.
func (x *Exchange) Close() error {
	x.host.RemoveStreamHandler(ProtocolID)
	x.host.RemoveStreamHandler(ProtocolV1)
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	x.cancel()
	for s := range x.served {
		s.Reset()
	}
	idle := x.idle
	x.idle = nil
	x.mu.Unlock()
	for _, s := range idle {
		s.discard()
	}
	x.tasks.Wait()
	if x.swap != nil {
		return x.swap.close()
	}
	return nil
}

// begin counts a task that Close waits for.
func (x *Exchange) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	x.tasks.Add(1)
	return true
}
