package chunkstore

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

// claim is a chunk that one fetch is asking for and others wait for.
type claim struct {
	owner   *fetch
	waiting []waiter
}

type waiter struct {
	f  *fetch
	it *item
}

// claim makes f the one that asks for the item, or puts it in the queue behind the one that does. The lock of f is held.
func (x *Exchange) claim(f *fetch, it *item) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.claims[it.key]
	if c == nil {
		x.claims[it.key] = &claim{owner: f}
		return true
	}
	if c.owner == f {
		return true
	}
	c.waiting = append(c.waiting, waiter{f, it})
	return false
}

// settle ends the claim of f on a chunk that is here now, or that it no longer asks for. No lock of a fetch is held.
func (x *Exchange) settle(k key, f *fetch, here bool) {
	x.mu.Lock()
	c := x.claims[k]
	if c == nil || c.owner != f {
		x.mu.Unlock()
		return
	}
	delete(x.claims, k)
	x.mu.Unlock()
	for _, w := range c.waiting {
		w.f.elsewhere(w.it, here)
	}
}

// elsewhere: the fetch that this one left an item to has got it, or given it up.
func (f *fetch) elsewhere(it *item, here bool) {
	f.mu.Lock()
	if it.state != itemFlying || len(it.by) > 0 || f.ctx.Err() != nil {
		f.mu.Unlock()
		return
	}
	if !here {
		f.idle(it)
		f.mu.Unlock()
		return
	}
	it.state = itemNew // nobody else touches it now
	f.mu.Unlock()
	here, below, err := f.local(it)
	if err != nil {
		f.fail(err)
		return
	}
	f.mu.Lock()
	if !here {
		f.idle(it)
		f.mu.Unlock()
		return
	}
	it.state = itemFlying
	f.mu.Unlock()
	f.arrived(it, below)
}

// pick takes the next item for w to ask for, nil when there is none. The lock is held.
func (f *fetch) pick(w *worker) *item {
	for w.cursor < len(f.order) {
		it := f.order[w.cursor]
		w.cursor++
		if it.state != itemIdle || slices.Contains(it.tried, w) {
			continue
		}
		it.state, it.since = itemFlying, time.Now()
		f.flying[it] = struct{}{}
		if f.x.claim(f, it) {
			return w.take(it)
		}
	}
	// Nothing is left but what others were asked for: overtake those that are slow. What another fetch has asked for, of
	// a holder unknown here, it gives up after Stall.
	for it := range f.flying {
		patience := f.x.cfg.Overtake
		if len(it.by) == 0 {
			patience = f.x.cfg.Stall
		}
		if len(it.by) < 2 && time.Since(it.since) >= patience && !slices.Contains(it.tried, w) {
			return w.take(it)
		}
	}
	return nil
}

func (w *worker) take(it *item) *item {
	it.since = time.Now()
	w.load++
	it.by = append(it.by, w)
	it.tried = append(it.tried, w)
	return it
}

// drop takes w off those who are asked for an item. The lock is held.
func (w *worker) drop(it *item) {
	if i := slices.Index(it.by, w); i >= 0 {
		it.by = slices.Delete(it.by, i, i+1)
		w.load--
	}
}

// wait is pick that waits for an item until there is nothing left to wait for.
func (f *fetch) wait(w *worker) *item {
	timer := time.NewTimer(f.x.cfg.Overtake)
	defer timer.Stop()
	for {
		if it := f.tryPick(w); it != nil {
			return it
		}
		f.mu.Lock()
		if f.fatal != nil || f.open == 0 || w.retired || f.ctx.Err() != nil {
			f.mu.Unlock()
			return nil
		}
		if w.cursor < len(f.order) { // something came in between
			f.mu.Unlock()
			continue
		}
		w.waiting, w.seen = true, f.version
		select {
		case f.poke <- struct{}{}:
		default:
		}
		changed := f.changed
		f.mu.Unlock()
		timer.Reset(f.x.cfg.Overtake)
		select {
		case <-changed:
		case <-timer.C:
		case <-f.ctx.Done():
			return nil
		}
	}
}

// tryPick is pick, passing over what another fetch has brought since it was last looked for.
func (f *fetch) tryPick(w *worker) *item {
	for {
		f.mu.Lock()
		var it *item
		if f.fatal == nil && !w.retired && f.ctx.Err() == nil {
			it = f.pick(w)
		}
		if it != nil {
			w.waiting = false
		}
		f.mu.Unlock()
		if it == nil || !f.already(w, it) {
			return it
		}
	}
}

// already ends an item that is in the store after all.
func (f *fetch) already(w *worker, it *item) bool {
	if _, verified, ok := f.x.store.index.look(it.key); !ok || !verified {
		return false
	}
	here, below, err := f.local(it)
	if err != nil {
		f.fail(err)
	}
	if err != nil || !here {
		return false
	}
	f.mu.Lock()
	w.drop(it)
	mine := it.state == itemFlying
	if mine {
		it.state = itemNew
	}
	f.mu.Unlock()
	if mine {
		f.arrived(it, below)
	}
	return true
}

// done records that w has brought an item and it is in the store; false means that it was here already.
func (f *fetch) done(w *worker, it *item, block []byte) bool {
	f.mu.Lock()
	w.drop(it)
	if it.state != itemFlying {
		f.mu.Unlock()
		return false
	}
	it.state = itemNew
	f.mu.Unlock()
	var below []cid.Cid
	if f.expand != nil {
		var err error
		if below, err = f.expand(it.cid, block); err != nil {
			f.fail(err)
			return true
		}
	}
	f.arrived(it, below)
	return true
}

// arrived ends an item that is in the store and takes in what lies below it.
func (f *fetch) arrived(it *item, below []cid.Cid) {
	if err := f.add(below); err != nil {
		f.fail(err)
	}
	f.mu.Lock()
	it.state = itemHere
	it.tried = nil
	delete(f.flying, it)
	f.open--
	f.notify()
	f.mu.Unlock()
	f.x.settle(it.key, f, true)
}

// release gives an item back that w will not bring.
func (f *fetch) release(w *worker, it *item) {
	f.mu.Lock()
	w.drop(it)
	given := it.state == itemFlying && len(it.by) == 0
	if given {
		f.idle(it)
	}
	f.mu.Unlock()
	if given {
		f.x.settle(it.key, f, false)
	}
}
