package chunkstore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// newHost is a libp2p host on loopback.
func newHost(t testing.TB) host.Host {
	t.Helper()
	h := must(libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay(), libp2p.DisableMetrics()))(t)
	t.Cleanup(func() { h.Close() })
	return h
}

// mesher is a peer with a store and an exchange.
type mesher struct {
	host  host.Host
	store *Store
	*Exchange
}

func newMesher(t testing.TB, change ...func(*ExchangeConfig)) *mesher {
	t.Helper()
	m := &mesher{host: newHost(t), store: testStore(t)}
	cfg := ExchangeConfig{Stall: time.Second, Overtake: 200 * time.Millisecond, BitswapWait: 3 * time.Second}
	for _, c := range change {
		c(&cfg)
	}
	m.Exchange = must(NewExchange(m.host, m.store, cfg))(t)
	t.Cleanup(func() { m.Close() })
	return m
}

func connect(t testing.TB, from host.Host, to ...host.Host) {
	t.Helper()
	for _, h := range to {
		if err := from.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
}

func noBitswap(c *ExchangeConfig) { c.NoBitswap = true }

// fill puts n chunks of size bytes and returns their names.
func fill(t testing.TB, s *Store, seed, n, size int) (list []cid.Cid) {
	t.Helper()
	for i := range n {
		list = append(list, must(s.Put(context.Background(), randomBytes(uint64(seed*1000+i), size)))(t))
	}
	return list
}

func copyTo(t testing.TB, to, from *Store, list []cid.Cid) {
	t.Helper()
	for _, c := range list {
		must(to.Put(context.Background(), must(from.Get(context.Background(), c))(t)))(t)
	}
}

func checkHas(t testing.TB, s *Store, list []cid.Cid) {
	t.Helper()
	for _, c := range list {
		if err := s.Verify(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
}

// evil answers every request of the protocol by respond, on a host that has no store.
func evil(t testing.TB, respond func(network.Stream, cid.Cid) error) host.Host {
	h := newHost(t)
	h.SetStreamHandler(ProtocolID, func(s network.Stream) {
		defer s.Reset()
		in := bufio.NewReader(s)
		for {
			c, err := readRequest(in)
			if err != nil || respond(s, c) != nil {
				return
			}
		}
	})
	return h
}

func TestFetchFromSeveralHolders(t *testing.T) {
	good, half, empty := newMesher(t, noBitswap), newMesher(t, noBitswap), newMesher(t, noBitswap)
	list := fill(t, good.store, 1, 60, 100_000)
	copyTo(t, half.store, good.store, list[:30])
	liar := evil(t, func(s network.Stream, c cid.Cid) error {
		_, err := s.Write(append(appendAnswer(nil, statusOK, 3), "lie"...))
		return err
	})
	staller := evil(t, func(network.Stream, cid.Cid) error { return nil })
	gone := newHost(t)
	me := newMesher(t, noBitswap)
	connect(t, me.host, good.host, half.host, empty.host, liar, staller, gone)
	gone.Close()
	from := []peer.ID{liar.ID(), staller.ID(), empty.host.ID(), gone.ID(), half.host.ID(), good.host.ID(), me.host.ID()}
	var mu sync.Mutex
	arrived := map[peer.ID]int64{}
	opts := FetchOptions{Arrived: func(p peer.ID, bytes int) {
		mu.Lock()
		defer mu.Unlock()
		arrived[p] += int64(bytes)
	}}
	for range 2 { // the second finds all here
		if err := me.Fetch(t.Context(), list, from, opts); err != nil {
			t.Fatal(err)
		}
	}
	checkHas(t, me.store, list)
	stats := me.Stats()
	for _, p := range from {
		if arrived[p] != stats.Peers[p].BytesIn {
			t.Errorf("%d bytes arrived from %s: %+v", arrived[p], p, stats.Peers[p])
		}
	}
	if stats.Total.BytesIn != 60*100_000 || stats.Total.ChunksIn != 60 {
		t.Errorf("total %+v", stats.Total)
	}
	if stats.Peers[liar.ID()].Drops != 1 || stats.Peers[liar.ID()].Wasted == 0 || stats.Peers[liar.ID()].BytesIn != 0 {
		t.Errorf("liar %+v", stats.Peers[liar.ID()])
	}
	if good.Stats().Peers[me.host.ID()].ChunksOut < 30 {
		t.Errorf("good holder sent %+v", good.Stats().Total)
	}
}

func TestFetchNamesWhatIsMissing(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	list := fill(t, a.store, 2, 5, 1000)
	lost := must(testStore(t).Put(t.Context(), []byte("nobody has this")))(t)
	err := me.Fetch(t.Context(), append(list, lost), []peer.ID{a.host.ID()}, FetchOptions{})
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, ErrUnavailable) || missing.Total != 1 || !missing.Chunks[0].Equals(lost) {
		t.Fatalf("got %v", err)
	}
	if want := "chunkstore: no peer that answers has " + lost.String(); err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	checkHas(t, me.store, list)
	// A holder that is found later has it; what is here is not fetched again.
	b := newMesher(t, noBitswap)
	connect(t, me.host, b.host)
	must(b.store.Put(t.Context(), []byte("nobody has this")))(t)
	asked := 0
	find := func(_ context.Context, c cid.Cid) []peer.ID { asked++; return []peer.ID{b.host.ID()} }
	if err := me.Fetch(t.Context(), append(list, lost), []peer.ID{a.host.ID()}, FetchOptions{Find: find}); err != nil || asked == 0 {
		t.Fatal(err, asked)
	}
	if in := me.Stats().Total.ChunksIn; in != 6 {
		t.Errorf("fetched %d chunks, want 6", in)
	}
	if err := me.Fetch(t.Context(), list, nil, FetchOptions{}); err != nil {
		t.Errorf("fetch of what is here, from nobody: %v", err)
	}
}

// TestFetchMoreHoldersThanAtOnce has the chunk with the last of many holders.
func TestFetchMoreHoldersThanAtOnce(t *testing.T) {
	me := newMesher(t, noBitswap, func(c *ExchangeConfig) { c.Holders = 2 })
	var from []peer.ID
	var last *mesher
	for range 7 {
		last = newMesher(t, noBitswap)
		connect(t, me.host, last.host)
		from = append(from, last.host.ID())
	}
	list := fill(t, last.store, 3, 3, 10)
	if err := me.Fetch(t.Context(), list, from, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestFetchDAG(t *testing.T) {
	a, b, me := newMesher(t, noBitswap), newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host, b.host)
	data := randomBytes(9, 5*MaxChunk+17)
	pieces, _ := importAll(t, a.store, Split{}, sourceFile{"f", data})
	root := pieces[0].Root
	blocks := must(a.store.Chunks(t.Context(), root))(t)
	if len(blocks) != 7 {
		t.Fatalf("%d blocks", len(blocks))
	}
	copyTo(t, b.store, a.store, blocks[4:])
	if err := me.FetchDAG(t.Context(), []cid.Cid{root}, []peer.ID{b.host.ID(), a.host.ID()}, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fileBytes(t, me.store, root), data) {
		t.Fatal("file differs")
	}
	// Again with a hole, of which the root does not tell.
	if err := me.store.Delete(blocks[3]); err != nil {
		t.Fatal(err)
	}
	if err := me.FetchDAG(t.Context(), []cid.Cid{root}, []peer.ID{a.host.ID()}, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if missing := must(me.store.Missing(t.Context(), root))(t); len(missing) > 0 {
		t.Fatalf("missing %v", missing)
	}
}

func TestFetchQuotaInTheMiddle(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	list := fill(t, a.store, 4, 12, MaxChunk)
	me.store.SetQuota(6 * MaxChunk)
	err := me.Fetch(t.Context(), list, []peer.ID{a.host.ID()}, FetchOptions{})
	if !errors.Is(err, ErrQuota) || me.store.Used() > me.store.Quota() {
		t.Fatalf("got %v with %d of %d used", err, me.store.Used(), me.store.Quota())
	}
	me.store.SetQuota(20 * MaxChunk)
	if err := me.Fetch(t.Context(), list, []peer.ID{a.host.ID()}, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if in := me.Stats().Total.ChunksIn; in > 13 {
		t.Errorf("%d chunks fetched: the second fetch did not go on where the first stopped", in)
	}
}

// TestFetchesShareChunks has ten fetches of the same chunks at once.
func TestFetchesShareChunks(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap, func(c *ExchangeConfig) { c.Overtake = 20 * time.Second })
	connect(t, me.host, a.host)
	list := fill(t, a.store, 5, 40, 50_000)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := me.Fetch(t.Context(), list, []peer.ID{a.host.ID()}, FetchOptions{}); err != nil {
				t.Error(err)
			}
			checkHas(t, me.store, list)
		})
	}
	wg.Wait()
	if n := a.Stats().Total.ChunksOut; n != 40 {
		t.Errorf("%d chunks crossed the wire, want 40", n)
	}
}

// TestFetchGivenUpIsTakenOver cancels the fetch that another one waits for.
func TestFetchGivenUpIsTakenOver(t *testing.T) {
	good, me := newMesher(t, noBitswap), newMesher(t, noBitswap, func(c *ExchangeConfig) { c.Stall, c.Overtake = time.Minute, time.Minute })
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	staller := evil(t, func(network.Stream, cid.Cid) error { once(); return nil })
	connect(t, me.host, good.host, staller)
	list := fill(t, good.store, 6, 1, 100)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- me.Fetch(ctx, list, []peer.ID{staller.ID()}, FetchOptions{}) }()
	<-asked
	second := make(chan error)
	go func() { second <- me.Fetch(t.Context(), list, []peer.ID{good.host.ID()}, FetchOptions{}) }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
}

// TestMisbehavingHolders: whatever a holder sends, the fetch ends soon, with the holder dropped and nothing stored.
func TestMisbehavingHolders(t *testing.T) {
	write := func(b ...byte) func(network.Stream, cid.Cid) error {
		return func(s network.Stream, _ cid.Cid) error { _, err := s.Write(b); return err }
	}
	var drips atomic.Int64
	for name, respond := range map[string]func(network.Stream, cid.Cid) error{
		"silent":         func(network.Stream, cid.Cid) error { return nil },
		"hangs up":       func(network.Stream, cid.Cid) error { return io.EOF },
		"unknown status": write(77),
		"refuses":        write(byte(statusRefused)),
		"cannot read":    write(byte(statusFailed)),
		"oversize":       write(binary.AppendUvarint([]byte{0}, MaxChunk+1)...),
		"endless varint": write(append([]byte{0}, bytes.Repeat([]byte{0xff}, 20)...)...),
		"not minimal":    write(0, 0x83, 0x00, 1, 2, 3),
		"short":          func(s network.Stream, _ cid.Cid) error { write(0, 5, 1, 2)(s, cid.Undef); return io.EOF },
		"empty":          write(0, 0),
		"stalls in data": write(0, 5, 1, 2),
		"drips for ever": func(s network.Stream, _ cid.Cid) error {
			if _, err := s.Write(binary.AppendUvarint([]byte{0}, 100_000)); err != nil {
				return err
			}
			for {
				if _, err := s.Write([]byte{1}); err != nil {
					return err
				}
				drips.Add(1)
				time.Sleep(20 * time.Millisecond) // the misbehaviour itself
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			me := newMesher(t, noBitswap, func(c *ExchangeConfig) { c.Stall, c.MinRate = 300*time.Millisecond, 1<<20 })
			bad := evil(t, respond)
			connect(t, me.host, bad)
			want := must(testStore(t).Put(t.Context(), []byte("what is wanted")))(t)
			err := me.Fetch(t.Context(), []cid.Cid{want}, []peer.ID{bad.ID()}, FetchOptions{})
			var missing *MissingError
			if !errors.As(err, &missing) || len(missing.Dropped) != 1 || me.Stats().Peers[bad.ID()].Drops != 1 {
				t.Fatalf("got %v", err)
			}
			if u := me.store.Usage(); u.Chunks != 0 || u.Used != 0 {
				t.Fatalf("left behind %+v", u)
			}
		})
	}
	if drips.Load() == 0 {
		t.Error("the dripping holder was dropped before it dripped")
	}
}

func TestServerLimits(t *testing.T) {
	var allowed atomic.Bool
	a := newMesher(t, noBitswap, func(c *ExchangeConfig) {
		c.StreamsPerPeer = 2
		c.Allow = func(peer.ID) bool { return allowed.Load() }
	})
	me := newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	list := fill(t, a.store, 7, 2, 10)
	fetch := func(c cid.Cid) error {
		return me.Fetch(t.Context(), []cid.Cid{c}, []peer.ID{a.host.ID()}, FetchOptions{})
	}
	if err := fetch(list[0]); !errors.Is(err, errRefused) {
		t.Fatalf("got %v", err)
	}
	allowed.Store(true)
	if err := fetch(list[0]); err != nil {
		t.Fatal(err)
	}
	// The kept stream takes one place; a second stream takes the other, the third is turned away.
	open := func() (network.Stream, byte) {
		s := must(me.host.NewStream(t.Context(), a.host.ID(), ProtocolID))(t)
		if _, err := s.Write(appendRequest(nil, list[0])); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := io.ReadFull(s, b[:]); err != nil {
			t.Fatal(err)
		}
		return s, b[0]
	}
	second, answer := open()
	if answer != byte(statusOK) {
		t.Fatalf("second stream: status %d", answer)
	}
	third, answer := open()
	if answer != byte(statusBusy) {
		t.Fatalf("third stream: status %d", answer)
	}
	second.Reset()
	third.Reset()
	allowed.Store(false)
	if err := fetch(list[1]); !errors.Is(err, errRefused) {
		t.Fatalf("over the kept stream: %v", err)
	}
	if a.Stats().Total.Refused == 0 {
		t.Error("refusals are not counted")
	}
}

// TestKeptStream: fetches in a row use one stream, and one that died unseen is no fault of the holder.
func TestKeptStream(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	for i, c := range fill(t, a.store, 8, 6, 10) {
		if err := me.Fetch(t.Context(), []cid.Cid{c}, []peer.ID{a.host.ID()}, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		if n := a.Stats().Serving; n != 1 {
			t.Fatalf("%d streams after fetch %d", n, i)
		}
		if i == 3 {
			a.mu.Lock()
			for s := range a.served {
				s.Reset()
			}
			a.mu.Unlock()
			eventually(t, "the stream that died to be through", func() bool { return a.Stats().Serving == 0 })
		}
	}
	if d := me.Stats().Total.Drops; d != 0 {
		t.Errorf("%d drops", d)
	}
}

func TestCloseEndsFetches(t *testing.T) {
	me := newMesher(t, noBitswap, func(c *ExchangeConfig) { c.Stall = time.Minute })
	asked := make(chan struct{}, 1)
	staller := evil(t, func(network.Stream, cid.Cid) error { asked <- struct{}{}; return nil })
	connect(t, me.host, staller)
	want := must(testStore(t).Put(t.Context(), []byte("x")))(t)
	result := make(chan error)
	go func() { result <- me.Fetch(t.Context(), []cid.Cid{want}, []peer.ID{staller.ID()}, FetchOptions{}) }()
	<-asked
	me.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if err := me.Fetch(t.Context(), []cid.Cid{want}, nil, FetchOptions{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestBitswapBothWays(t *testing.T) {
	a, b := newMesher(t), newMesher(t)
	connect(t, a.host, b.host)
	// A plain IPFS node speaks bitswap alone.
	a.host.RemoveStreamHandler(ProtocolID)
	a.host.RemoveStreamHandler(ProtocolV1)
	data := randomBytes(10, 3*MaxChunk+5)
	pieces, _ := importAll(t, a.store, Split{}, sourceFile{"f", data})
	root := pieces[0].Root
	if err := b.FetchDAG(t.Context(), []cid.Cid{root}, []peer.ID{a.host.ID()}, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fileBytes(t, b.store, root), data) {
		t.Fatal("file differs")
	}
	if got := b.Stats().Bitswap; got.BlocksIn != 5 {
		t.Errorf("bitswap brought %+v", got)
	}
	// And as boxo's own client would ask us.
	c := fill(t, b.store, 11, 1, 1000)[0]
	if b.swap.peek() == nil {
		t.Error("a fetch by bitswap has not begun it")
	}
	block, err := a.swap.get().GetBlock(t.Context(), c)
	if err != nil || len(block.RawData()) != 1000 {
		t.Fatal(err)
	}
}

// TestDAGOfNonsense: a root that is a valid chunk but no DAG node ends the fetch with its kind.
func TestDAGOfNonsense(t *testing.T) {
	a, me := newMesher(t, noBitswap), newMesher(t, noBitswap)
	connect(t, me.host, a.host)
	raw := must(a.store.Put(t.Context(), []byte("\xff\xff not a node")))(t)
	node := cid.NewCidV1(cid.DagProtobuf, raw.Hash())
	if err := me.FetchDAG(t.Context(), []cid.Cid{node}, []peer.ID{a.host.ID()}, FetchOptions{}); !errors.Is(err, ErrMalformed) {
		t.Fatalf("got %v", err)
	}
}

// BenchmarkFetch moves 64 MiB from one store to another, verified and written; cpu-s/GiB is that of both ends.
func BenchmarkFetch(b *testing.B) {
	a, me := newMesher(b, noBitswap), newMesher(b, noBitswap)
	connect(b, me.host, a.host)
	list := fill(b, a.store, 12, 64, MaxChunk)
	b.SetBytes(64 * MaxChunk)
	b.ReportAllocs()
	var used time.Duration
	for b.Loop() {
		began := cpuTime(b)
		if err := me.Fetch(b.Context(), list, []peer.ID{a.host.ID()}, FetchOptions{}); err != nil {
			b.Fatal(err)
		}
		used += cpuTime(b) - began
		b.StopTimer()
		for _, c := range list {
			me.store.Delete(c)
		}
		b.StartTimer()
	}
	reportCPU(b, used, 64*MaxChunk)
}

// TestFetchEndsWhenItIsGivenUp gives fetches up at about the time when their workers begin: each of them ends.
func TestFetchEndsWhenItIsGivenUp(t *testing.T) {
	me := newMesher(t, noBitswap)
	staller := evil(t, func(network.Stream, cid.Cid) error { return nil })
	connect(t, me.host, staller)
	for i := range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
		if err := me.Fetch(ctx, []cid.Cid{cidOf(cid.Raw, key{1, byte(i), byte(i >> 8)})}, []peer.ID{staller.ID()}, FetchOptions{}); err == nil {
			t.Fatal("fetched what nobody has")
		}
		cancel()
	}
}

// TestBitswapBeginsWhenAsked has an IPFS node, which speaks bitswap alone, ask a peer that nobody asked so before, connected
// long since: its first request is answered, and not before it the peer runs bitswap.
func TestBitswapBeginsWhenAsked(t *testing.T) {
	us, ipfs := newMesher(t), newHost(t)
	connect(t, us.host, ipfs)
	c := fill(t, us.store, 12, 1, 1000)[0]
	store := testStore(t)
	theirs := bitswap.New(t.Context(), bsnet.NewFromIpfsHost(ipfs), nil, store.Blockstore())
	defer theirs.Close()
	if us.swap.peek() != nil {
		t.Fatal("bitswap runs and nobody has asked")
	}
	block, err := theirs.GetBlock(t.Context(), c)
	if err != nil || len(block.RawData()) != 1000 {
		t.Fatal(err)
	}
	if got := us.Stats().Bitswap; got.BlocksOut != 1 {
		t.Errorf("bitswap has served %+v", got)
	}
	if err := us.Exchange.Close(); err != nil {
		t.Fatal(err)
	}
	if us.swap.get() != nil {
		t.Error("bitswap begins after Close")
	}
}
