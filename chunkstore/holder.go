package chunkstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// The ways in which a holder lets a fetch down.
var (
	errStalled = errors.New("no progress")
	errRefused = errors.New("refuses to serve this peer")
	errBusy    = errors.New("busy")
	errFailed  = errors.New("cannot read the chunk")
)

// worker asks one holder for chunks of one fetch.
type worker struct {
	f    *fetch
	peer peer.ID

	// Guarded by the fetch's lock.
	cursor  int  // into fetch.order
	waiting bool // it found nothing to do at version seen
	seen    int
	load    int  // items it has been asked for and has not answered
	retired bool // it is to end; its place is taken
	ended   bool

	asked []request // not answered yet, in order
}

// request is an item that a holder was asked for, and when.
type request struct {
	*item
	at time.Time
}

// holderStream is a stream to a holder. Its reads fail when the holder makes no progress.
type holderStream struct {
	network.Stream
	peer  peer.ID
	in    *bufio.Reader
	stall time.Duration
	limit time.Time // of the answer being read
	set   time.Time // when the deadline was set last
	timer *time.Timer
	used  bool // it has served a fetch before
}

// Read moves the deadline with the progress.
func (h *holderStream) Read(p []byte) (int, error) {
	now := time.Now()
	if now.Sub(h.set) > h.stall/8 {
		deadline := now.Add(h.stall)
		if h.limit.Before(deadline) {
			deadline = h.limit
		}
		if err := h.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
		h.set = now
	}
	return h.Stream.Read(p)
}

// allow gives the holder until d from now for what is read next.
func (h *holderStream) allow(d time.Duration) {
	h.limit, h.set = time.Now().Add(d), time.Time{}
}

func (h *holderStream) discard() {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.Reset()
}

// stream takes the kept stream to a peer, or opens one.
func (x *Exchange) stream(ctx context.Context, p peer.ID) (*holderStream, error) {
	x.mu.Lock()
	h := x.idle[p]
	delete(x.idle, p)
	x.mu.Unlock()
	if h != nil && h.timer.Stop() {
		return h, nil
	}
	s, err := x.open(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := s.Scope().SetService("mesh.chunks"); err != nil {
		s.Reset()
		return nil, err
	}
	h = &holderStream{Stream: s, peer: p, stall: x.cfg.Stall}
	h.in = bufio.NewReaderSize(h, 16<<10)
	return h, nil
}

// enter waits until a stream to the peer may be used: there are at most StreamsTo. Whoever has one has chunks on their way.
func (x *Exchange) enter(ctx context.Context, p peer.ID) error {
	for {
		x.mu.Lock()
		if x.using[p] < x.cfg.StreamsTo {
			x.using[p]++
			x.mu.Unlock()
			return nil
		}
		left := x.left
		x.mu.Unlock()
		select {
		case <-left:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (x *Exchange) exit(p peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.using[p]--; x.using[p] == 0 {
		delete(x.using, p)
	}
	close(x.left)
	x.left = make(chan struct{})
}

// maxIdleStreams bounds the kept streams: one each to the holders that a peer fetches from in turn.
const maxIdleStreams = 128

// keep puts a stream without open requests aside for the next fetch.
func (x *Exchange) keep(h *holderStream) {
	h.used = true
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.idle[h.peer] != nil || len(x.idle) >= maxIdleStreams {
		h.Close()
		return
	}
	x.idle[h.peer] = h
	h.timer = time.AfterFunc(x.cfg.StreamIdle, func() {
		x.mu.Lock()
		if x.idle[h.peer] == h {
			delete(x.idle, h.peer)
		}
		x.mu.Unlock()
		h.Close()
	})
}

// run works for the fetch until there is nothing left to do or the holder is dropped.
func (w *worker) run() {
	f := w.f
	defer f.wg.Done()
	err := w.work()
	for _, r := range w.asked {
		f.release(w, r.item)
	}
	w.asked = nil
	if err != nil && f.ctx.Err() == nil {
		f.drop(w, err)
	}
	f.mu.Lock()
	w.ended, w.waiting = true, false
	if !w.retired {
		f.live--
	}
	f.notify()
	f.mu.Unlock()
	if err != nil && f.ctx.Err() == nil {
		f.more(nil)
	}
}

// drop records why a holder is no longer asked.
func (f *fetch) drop(w *worker, err error) {
	f.x.stats.dropped(w.peer)
	if errors.Is(err, ErrMismatch) {
		f.x.log.Info("holder sent wrong bytes, and is dropped from a fetch", "peer", w.peer, "cause", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
		f.foreign = true
	}
	if len(f.causes) < maxCauses {
		f.causes = append(f.causes, fmt.Errorf("holder %s dropped: %w", w.peer, err))
	}
}

// work takes items until there is nothing left to wait for.
func (w *worker) work() error {
	for {
		it := w.f.wait(w)
		if it == nil {
			return nil
		}
		w.asked = append(w.asked, request{it, time.Now()})
		if err := w.turn(); err != nil {
			return err
		}
	}
}

// turn opens a stream and keeps it busy as long as there is something to ask for. A kept stream may have died unseen: its
// failure before the first answer is no fault of the holder, which is asked again on a new one.
func (w *worker) turn() error {
	f := w.f
	if err := f.x.enter(f.ctx, w.peer); err != nil {
		return err
	}
	defer f.x.exit(w.peer)
	for busy := 0; ; {
		h, err := f.x.stream(f.ctx, w.peer)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(f.ctx, func() { h.Reset() })
		answers, err := w.talk(h)
		if whole := stop(); err == nil && whole {
			f.x.keep(h)
			return nil
		}
		h.discard()
		switch {
		case err == nil || f.ctx.Err() != nil:
			return err
		case h.used && answers == 0:
		case errors.Is(err, errBusy) && busy < busyTries:
			w.pause(busy)
			busy++
		default:
			return err
		}
	}
}

// talk asks and reads until nothing is asked for and nothing is to ask.
func (w *worker) talk(h *holderStream) (answers int, err error) {
	f := w.f
	sent := 0 // of asked
	for depth := 2; ; {
		for len(w.asked) < depth {
			it := f.tryPick(w)
			if it == nil {
				break
			}
			w.asked = append(w.asked, request{it, time.Now()})
		}
		if len(w.asked) == 0 {
			return answers, nil
		}
		if err := w.send(h, w.asked[sent:]); err != nil {
			return answers, err
		}
		first := w.asked[0]
		if err := w.receive(h, first.item); err != nil {
			return answers, err
		}
		w.asked = slices.Delete(w.asked, 0, 1)
		sent = len(w.asked)
		answers++
		// The pipeline deepens as long as answers come soon: what waits long in it could have come from elsewhere, and
		// would be overtaken.
		if time.Since(first.at) < f.x.cfg.Overtake/2 {
			depth = min(depth+1, f.x.cfg.Pipeline)
		} else {
			depth = max(depth-1, 2)
		}
	}
}

func (w *worker) send(h *holderStream, list []request) error {
	if len(list) == 0 {
		return nil
	}
	var b []byte
	for _, r := range list {
		b = appendRequest(b, r.cid)
	}
	if err := h.SetWriteDeadline(time.Now().Add(w.f.x.cfg.Stall)); err != nil {
		return err
	}
	_, err := h.Write(b)
	return err
}

// receive reads the answer for an item. An error is the holder's fault; one of the store fails the fetch.
func (w *worker) receive(h *holderStream, it *item) error {
	cfg := &w.f.x.cfg
	h.allow(cfg.Stall)
	s, size, err := readAnswer(h.in)
	if err != nil {
		return slow(err)
	}
	switch s {
	case statusOK, statusPacked:
	case statusNotFound:
		w.f.release(w, it)
		return nil
	case statusRefused:
		return errRefused
	case statusBusy:
		return errBusy
	default:
		return fmt.Errorf("chunk %s: %w", it.cid, errFailed)
	}
	select {
	case w.f.x.window <- struct{}{}:
		defer func() { <-w.f.x.window }()
	case <-w.f.ctx.Done():
		return w.f.ctx.Err()
	}
	h.allow(cfg.Stall + time.Duration(float64(size)/float64(cfg.MinRate)*float64(time.Second)))
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	data := buf[:size]
	if s == statusPacked {
		err = unpack(h.in, data)
	} else if _, err = io.ReadFull(h.in, data); err != nil {
		err = noEOF(err)
	}
	if err != nil {
		return fmt.Errorf("chunk %s: %w", it.cid, slow(err))
	}
	return w.accept(it, data)
}

// accept checks and stores what the holder sent.
func (w *worker) accept(it *item, data []byte) error {
	f := w.f
	k, err := check(it.cid, data)
	if err != nil {
		f.x.stats.wasted(w.peer, len(data))
		return err
	}
	if err := f.x.store.putVerified(f.ctx, k, data); err != nil { // costs nothing if another holder was faster
		f.fail(fmt.Errorf("chunkstore: fetch: %w", err))
		return nil
	}
	if f.done(w, it, data) {
		f.x.stats.received(w.peer, len(data))
		f.opts.arrived(w.peer, len(data))
	} else {
		f.x.stats.wasted(w.peer, len(data))
	}
	return nil
}

// slow turns the error of a passed deadline into words.
func slow(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errStalled
	}
	return err
}

// busyTries is how often a busy holder is asked again, after 50 ms, 100 ms, ...: 3.1 s in all, some hundred chunks' time for
// the streams that it serves first.
const busyTries = 6

// pause waits before the next try at a busy holder. What it was asked for stays with it; others may overtake.
func (w *worker) pause(try int) {
	select {
	case <-time.After(50 * time.Millisecond << try):
	case <-w.f.ctx.Done():
	}
}

// bitswap asks connected peers for items, and says whether any came.
func (f *fetch) bitswap(list []*item) (any bool) {
	keys := f.toSwap(list)
	defer f.fromSwap(list)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	swap := f.x.swap.get()
	if swap == nil {
		return false
	}
	blocks, err := swap.NewSession(ctx).GetBlocks(ctx, keys)
	if err != nil {
		f.x.log.Debug("bitswap", "error", err)
		return false
	}
	timer := time.AfterFunc(f.x.cfg.BitswapWait, cancel)
	defer timer.Stop()
	for b := range blocks {
		timer.Reset(f.x.cfg.BitswapWait)
		f.mu.Lock()
		it := f.items[b.Cid()]
		f.mu.Unlock()
		if it == nil {
			continue
		}
		// Bitswap has matched the block with the CID by hashing it; the hash here is for the size limit and for trust.
		k, err := check(b.Cid(), b.RawData())
		if err == nil {
			err = f.x.store.putVerified(f.ctx, k, b.RawData())
		}
		if err != nil {
			f.fail(fmt.Errorf("chunkstore: fetch: %w", err))
			return true
		}
		f.mu.Lock()
		fresh := it.state == itemSwap
		if fresh {
			it.state = itemFlying
		}
		f.mu.Unlock()
		if fresh && f.done(&worker{}, it, b.RawData()) {
			f.opts.arrived("", len(b.RawData()))
			any = true
		}
	}
	return any
}

// maxSwap is how many chunks are asked for by bitswap at a time: half of what other peers queue for one (1,024).
const maxSwap = 512

// toSwap takes items out of the holders' reach.
func (f *fetch) toSwap(list []*item) (keys []cid.Cid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, it := range list[:min(len(list), maxSwap)] {
		if it.state == itemIdle {
			it.state = itemSwap
			keys = append(keys, it.cid)
		}
	}
	return keys
}

// fromSwap gives back those that did not come.
func (f *fetch) fromSwap(list []*item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, it := range list {
		if it.state == itemSwap {
			f.idle(it)
		}
	}
}
