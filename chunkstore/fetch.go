package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrUnavailable: chunks that nobody who was asked could give. The error is a *MissingError.
var ErrUnavailable = errors.New("chunks not available")

// MissingError names the chunks that a fetch could not get, and what became of the holders.
type MissingError struct {
	Chunks  []cid.Cid // at most 16 of them
	Total   int
	Dropped []error // at most 8: why holders were dropped
}

// maxNamed and maxCauses bound a MissingError, maxShown the chunks in its text: a person reads it.
const (
	maxNamed  = 16
	maxCauses = 8
	maxShown  = 3
)

func (e *MissingError) Error() string {
	var b strings.Builder
	b.WriteString("chunkstore: no peer that answers has ")
	shown := e.Chunks[:min(len(e.Chunks), maxShown)]
	for i, c := range shown {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.String())
	}
	if more := e.Total - len(shown); more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	for _, err := range e.Dropped {
		fmt.Fprintf(&b, "; %v", err)
	}
	return b.String()
}

// Is makes a MissingError an ErrUnavailable.
func (e *MissingError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap gives the reasons for the dropped holders.
func (e *MissingError) Unwrap() []error { return e.Dropped }

// FetchOptions are further ways to the chunks. The zero value asks the named holders alone.
type FetchOptions struct {
	// Find returns more holders of a chunk that those asked so far do not have. It may take its time, until ctx ends.
	Find func(ctx context.Context, c cid.Cid) []peer.ID
	// Bitswap asks all connected peers by bitswap for what no holder had. Holders that are IPFS nodes, and do not know
	// ProtocolID, are asked by it in any case.
	Bitswap bool
	// Arrived is told of each chunk that this fetch has brought into the store: who gave it (empty: somebody, by bitswap)
	// and its bytes. Several goroutines call it; it must not block.
	Arrived func(from peer.ID, bytes int)
}

func (o *FetchOptions) arrived(from peer.ID, bytes int) {
	if o.Arrived != nil {
		o.Arrived(from, bytes)
	}
}

// Fetch brings chunks into the store. Several holders are asked at once, and each takes more work as it completes some. A
// holder that makes no progress, fails or lies is dropped, for this fetch; what it sent stays. Chunks that are here
// already are not fetched, so a fetch that failed can be repeated and goes on where it was. Fetches that want the same
// chunk share it. Until it returns nothing it fetched is collected. Errors: ErrUnavailable, ErrQuota, ErrUnsupported,
// ErrClosed, those of ctx and of the file system.
func (x *Exchange) Fetch(ctx context.Context, want []cid.Cid, from []peer.ID, opts FetchOptions) error {
	return x.fetch(ctx, want, from, opts, nil)
}

// FetchDAG is Fetch of whole DAGs: the roots and, as soon as a node is here, what it links to. Further errors: ErrMalformed.
func (x *Exchange) FetchDAG(ctx context.Context, roots []cid.Cid, from []peer.ID, opts FetchOptions) error {
	return x.fetch(ctx, roots, from, opts, links)
}

func (x *Exchange) fetch(ctx context.Context, want []cid.Cid, from []peer.ID, opts FetchOptions, expand func(cid.Cid, []byte) ([]cid.Cid, error)) error {
	if !x.begin() {
		return fmt.Errorf("chunkstore: fetch: %w", ErrClosed)
	}
	defer x.tasks.Done()
	f := &fetch{
		x: x, opts: opts, expand: expand,
		items: map[cid.Cid]*item{}, flying: map[*item]struct{}{}, workers: map[peer.ID]*worker{},
		changed: make(chan struct{}), poke: make(chan struct{}, 1),
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(x.ctx, f.cancel)
	hold := x.store.Hold()
	defer hold.Release()
	err := f.run(want, from)
	if err == nil {
		f.settled()
	}
	f.cancel()
	stop()
	f.wg.Wait()
	f.abandon()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("chunkstore: fetch: %w", ctx.Err())
	case x.ctx.Err() != nil:
		return fmt.Errorf("chunkstore: fetch: %w", ErrClosed)
	}
	return err
}

// fetch is one call of Fetch: the chunks it wants, who is asked for which, and who is left to ask. One goroutine a holder
// takes items from it; the caller's goroutine finds further holders when those there are have nothing left to do.
type fetch struct {
	x      *Exchange
	ctx    context.Context
	cancel context.CancelFunc
	opts   FetchOptions
	expand func(cid.Cid, []byte) ([]cid.Cid, error)
	wg     sync.WaitGroup
	poke   chan struct{} // tells the caller's goroutine to look

	mu      sync.Mutex
	items   map[cid.Cid]*item
	order   []*item // every item, once each time it becomes idle; workers go over it once, in step with cursor
	version int     // grows with order
	flying  map[*item]struct{}
	open    int // items that are not here yet
	fatal   error
	workers map[peer.ID]*worker
	reserve []peer.ID
	live    int
	changed chan struct{} // closed and replaced when idle workers should look again
	causes  []error
	foreign bool // a holder does not speak the protocol
}

type itemState uint8

const (
	itemNew    itemState = iota // not looked up yet
	itemIdle                    // to be asked for
	itemFlying                  // asked for, by this fetch or (by is empty) by another one
	itemHere
	itemSwap // asked for by bitswap
)

// item is a chunk that a fetch wants.
type item struct {
	cid   cid.Cid
	key   key
	state itemState
	since time.Time // of the last request
	by    []*worker // who has been asked and has not answered
	tried []*worker // who has been asked
}

// add takes chunks into the fetch, and what lies below those that are here already.
func (f *fetch) add(list []cid.Cid) error {
	todo := slices.Clone(list)
	slices.Reverse(todo)
	for len(todo) > 0 {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		it, err := f.newItem(c)
		if err != nil {
			return err
		}
		if it == nil {
			continue
		}
		here, below, err := f.local(it)
		if err != nil {
			return err
		}
		slices.Reverse(below)
		todo = append(todo, below...)
		f.mu.Lock()
		if here {
			it.state = itemHere
			f.open--
		} else {
			f.idle(it)
		}
		f.mu.Unlock()
	}
	return nil
}

// newItem is nil for a chunk that the fetch knows already.
func (f *fetch) newItem(c cid.Cid) (*item, error) {
	k, _, err := keyOf(c)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.items[c] != nil {
		return nil, nil
	}
	if len(f.items) >= f.x.cfg.MaxChunks {
		return nil, fmt.Errorf("chunkstore: fetch: more than %d chunks", f.x.cfg.MaxChunks)
	}
	it := &item{cid: c, key: k}
	f.items[c] = it
	f.open++
	return it, nil
}

// local says whether the chunk is here and right, and what is to be fetched below it.
func (f *fetch) local(it *item) (here bool, below []cid.Cid, err error) {
	_, inline, _ := keyOf(it.cid)
	if inline == nil && !f.x.store.present(it.key) {
		return false, nil, nil
	}
	if f.expand == nil || it.cid.Type() != cid.DagProtobuf {
		return true, nil, nil
	}
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	block, err := f.x.store.peek(it.cid, buf[:])
	if errors.Is(err, ErrNotFound) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	below, err = f.expand(it.cid, block)
	return true, below, err
}

// idle makes an item one to be asked for. The lock is held.
func (f *fetch) idle(it *item) {
	it.state = itemIdle
	delete(f.flying, it)
	f.order = append(f.order, it)
	f.version++
	f.notify()
}

// notify makes everybody look again. The lock is held.
func (f *fetch) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

func (f *fetch) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fatal == nil {
		f.fatal = err
	}
	f.notify()
}

// run drives the fetch to its end.
func (f *fetch) run(want []cid.Cid, from []peer.ID) error {
	if err := f.add(want); err != nil {
		return err
	}
	f.more(from)
	for {
		f.mu.Lock()
		open, fatal, stuck := f.open, f.fatal, f.stuck()
		f.mu.Unlock()
		switch {
		case fatal != nil:
			return fatal
		case open == 0:
			return nil
		case stuck:
			if f.next() {
				continue
			}
			if err := f.ctx.Err(); err != nil {
				return err
			}
			return f.missing()
		}
		select {
		case <-f.poke:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
}

// settled waits for the workers that are through, whose streams can be kept. The others are still reading what somebody
// else has brought.
func (f *fetch) settled() {
	through := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, w := range f.workers {
			if !w.ended && w.load == 0 {
				return false
			}
		}
		return true
	}
	for !through() {
		select {
		case <-f.poke:
		case <-f.ctx.Done():
			return
		}
	}
}

// stuck says that no holder at work has anything left to do for the items that are missing. The lock is held.
func (f *fetch) stuck() bool {
	if len(f.flying) > 0 {
		return false
	}
	for _, w := range f.workers {
		if !w.ended && (!w.waiting || w.seen != f.version) {
			return false
		}
	}
	return true
}

// next tries one further way to what is missing; false means that there is none.
func (f *fetch) next() bool {
	if f.more(nil) {
		return true
	}
	idle := f.idleItems()
	if f.opts.Find != nil {
		for _, it := range idle[:min(len(idle), maxNamed)] {
			if f.ctx.Err() == nil && f.more(f.opts.Find(f.ctx, it.cid)) {
				return true
			}
		}
	}
	f.mu.Lock()
	swap := f.x.swap != nil && (f.opts.Bitswap || f.foreign)
	f.mu.Unlock()
	return swap && f.bitswap(idle)
}

// more puts holders to work, in their order, as far as the limit allows; the others wait in reserve, of which it takes the
// first ones too. It says whether anybody new is at work.
func (f *fetch) more(peers []peer.ID) (any bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range peers {
		if p != f.x.host.ID() && f.workers[p] == nil && !slices.Contains(f.reserve, p) && len(f.reserve) < maxReserve {
			f.reserve = append(f.reserve, p)
		}
	}
	f.retireIdle()
	for len(f.reserve) > 0 && f.live < f.x.cfg.Holders {
		w := &worker{f: f, peer: f.reserve[0]}
		f.reserve = f.reserve[1:]
		f.workers[w.peer] = w
		f.live++
		f.wg.Add(1)
		go w.run()
		any = true
	}
	return any
}

// maxReserve bounds the holders that a fetch remembers, asked or not: more than any set of keepers.
const maxReserve = 256

// retireIdle ends the work of holders that have nothing left when others wait for their place. The lock is held.
func (f *fetch) retireIdle() {
	if len(f.reserve) == 0 || f.live < f.x.cfg.Holders || !f.stuck() {
		return
	}
	for _, w := range f.workers {
		if w.waiting && !w.retired {
			w.retired = true
			f.live--
		}
	}
	f.notify()
}

func (f *fetch) idleItems() (list []*item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, it := range f.items {
		if it.state == itemIdle {
			list = append(list, it)
		}
	}
	return list
}

func (f *fetch) missing() error {
	e := &MissingError{}
	for _, it := range f.idleItems() {
		e.Total++
		e.Chunks = append(e.Chunks, it.cid)
	}
	slices.SortFunc(e.Chunks, func(a, b cid.Cid) int { return strings.Compare(a.KeyString(), b.KeyString()) })
	e.Chunks = e.Chunks[:min(len(e.Chunks), maxNamed)]
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Dropped = slices.Clone(f.causes)
	return e
}

// abandon gives up the claims of a fetch that has ended, so that others ask for those chunks themselves.
func (f *fetch) abandon() {
	f.mu.Lock()
	var keys []key
	for it := range f.flying {
		keys = append(keys, it.key)
	}
	clear(f.flying)
	f.mu.Unlock()
	for _, k := range keys {
		f.x.settle(k, f, false)
	}
}
