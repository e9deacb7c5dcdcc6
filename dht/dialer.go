package dht

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// redialFirst bounds the wait before a peer is dialled again from below: the first after a lost connection, then
	// doubled with each failure. Times are drawn from half to one and a half of it, so that the peers of one that
	// restarts do not all come at once. A peer that restarts is met again within a second.
	redialFirst = 250 * time.Millisecond
	// redialChosen, redialOther bound the wait from above. A bootstrap peer that is back is reached within 25 s. All
	// maxKnown remembered peers, were they all gone, cost a dial in 2 s.
	redialChosen = 15 * time.Second
	redialOther  = 5 * time.Minute
	// redialNamed is the longest wait for a peer that a neighbour has just named: it is connected to it now.
	redialNamed = 5 * time.Second
	// stableAfter is how long a connection must have held for the wait to start small again.
	stableAfter = 30 * time.Second
	// dialConcurrency bounds dials under way: a newcomer meets a small mesh in one go.
	dialConcurrency = 16
	// maxCandidates bounds the peers that are dialled from time to time: the bootstrap peers, those remembered, and
	// the answers of several neighbours.
	maxCandidates = MaxBootstrap + maxKnown + 8*maxRecords
	// maxFailures is how often a peer that others named is dialled in vain before it is forgotten.
	maxFailures = 8
)

// origin says where a candidate comes from, and so how long it is worth dialling.
type origin int

const (
	named      origin = iota // by another peer: while the degree is below target, up to maxFailures times
	remembered               // met before: while the degree is below target, for ever
	chosen                   // by the person who runs this peer: for ever, whatever the degree
)

// candidate is a peer that is to be connected.
type candidate struct {
	info     peer.AddrInfo
	origin   origin
	failures int
	next     time.Time // when to dial, if it is not connected
	since    time.Time // start of the connection; zero: none
	dialling bool
}

// dialer keeps connections to candidates: one loop decides, a bounded number of goroutines dial.
type dialer struct {
	dial   func(context.Context, peer.AddrInfo) error // must return within dialTimeout or so
	degree func() int                                 // peers connected now
	target int
	gate   *Gate // whom it refuses is not dialled
	log    *slog.Logger

	mu         sync.Mutex
	candidates map[peer.ID]*candidate
	active     int
	wake       chan struct{}
	wg         sync.WaitGroup
}

func newDialer(target int, degree func() int, dial func(context.Context, peer.AddrInfo) error, log *slog.Logger) *dialer {
	return &dialer{
		dial: dial, degree: degree, target: target, log: log,
		candidates: make(map[peer.ID]*candidate),
		wake:       make(chan struct{}, 1),
	}
}

// add notes where a peer can be reached, and dials it soon if it is new. What a person chose stays chosen.
func (d *dialer) add(info peer.AddrInfo, from origin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.candidates[info.ID]
	if c == nil {
		if len(d.candidates) >= maxCandidates && !d.evict(from) {
			return
		}
		c = &candidate{}
		d.candidates[info.ID] = c
	}
	if soon := time.Now().Add(redialNamed); c.next.After(soon) {
		c.next = soon
	}
	if from >= c.origin {
		c.info = info
		c.origin = from
	}
	d.signal()
}

// evict makes room for a candidate of the given origin by dropping one that is worth less or as much.
func (d *dialer) evict(from origin) bool {
	for id, c := range d.candidates {
		if c.origin <= from && c.origin != chosen && c.since.IsZero() && !c.dialling {
			delete(d.candidates, id)
			return true
		}
	}
	return false
}

// connected notes that the peer is up, reachable at these addresses.
func (d *dialer) connected(info peer.AddrInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.candidates[info.ID]
	if c == nil {
		if len(d.candidates) >= maxCandidates && !d.evict(remembered) {
			return
		}
		c = &candidate{}
		d.candidates[info.ID] = c
	}
	// The addresses a person gave are kept: they may be names that will mean another address tomorrow.
	if c.origin != chosen && len(info.Addrs) > 0 {
		c.info, c.origin = info, remembered
	}
	c.since = time.Now()
}

// lost notes that the peer is connected no more.
func (d *dialer) lost(p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.candidates[p]
	if c == nil {
		return
	}
	if time.Since(c.since) >= stableAfter {
		c.failures = 0
	}
	c.since = time.Time{}
	d.postpone(c)
	d.signal()
}

// retry makes peers that the gate refused due now, as if nothing had happened.
func (d *dialer) retry(admitted []peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range admitted {
		if c := d.candidates[p]; c != nil {
			c.failures, c.next = 0, time.Now()
		}
	}
	d.signal()
}

// postpone sets the next dial after a lost connection or a failed one.
func (d *dialer) postpone(c *candidate) {
	wait := redialOther
	if c.origin == chosen {
		wait = redialChosen
	}
	if c.failures < 16 { // beyond, the shift would overflow, and the wait has long been the longest
		wait = min(wait, redialFirst<<c.failures)
	}
	c.failures++
	c.next = time.Now().Add(wait/2 + rand.N(wait))
}

// run dials until ctx ends, and returns when no dial is under way.
func (d *dialer) run(ctx context.Context) {
	defer d.wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		timer.Reset(d.start(ctx))
	}
}

// start begins every dial that is due and returns when the next will be.
func (d *dialer) start(ctx context.Context) time.Duration {
	degree := d.degree()
	d.mu.Lock()
	defer d.mu.Unlock()
	now, wait := time.Now(), redialOther
	for id, c := range d.candidates {
		if !c.since.IsZero() || c.dialling || d.gate.refuses(id) || !d.wants(c, degree) {
			continue
		}
		if due := c.next.Sub(now); due > 0 {
			wait = min(wait, due)
			continue
		}
		if c.origin == named && c.failures >= maxFailures {
			delete(d.candidates, id)
			continue
		}
		if d.active >= dialConcurrency {
			return wait // the end of a dial wakes the loop
		}
		c.dialling = true
		d.active++
		info := c.info // it may change while the dial is under way
		d.wg.Go(func() { d.try(ctx, c, info) })
	}
	return wait
}

// wants tells whether c should be connected, at the given degree. The caller holds mu.
func (d *dialer) wants(c *candidate, degree int) bool {
	return c.origin == chosen || degree+d.active < d.target
}

// settled tells whether every candidate is connected or has been dialled in vain.
func (d *dialer) settled() bool {
	degree := d.degree()
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, c := range d.candidates {
		if c.since.IsZero() && c.failures == 0 && !d.gate.refuses(id) && d.wants(c, degree) {
			return false
		}
	}
	return true
}

// try dials once and notes the outcome.
func (d *dialer) try(ctx context.Context, c *candidate, info peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := d.dial(ctx, info)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	c.dialling = false
	if err != nil {
		d.postpone(c)
		if ctx.Err() == nil {
			d.log.Debug("peer not reached", "peer", info.ID, "attempts", c.failures, "error", err)
		}
	} else if c.since.IsZero() {
		// Reached; connected follows. If it does not, this is the next try.
		c.next = time.Now().Add(dialTimeout)
	}
	d.signal()
}

// signal wakes run. The caller holds mu.
func (d *dialer) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}
