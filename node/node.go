package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/dht"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/ipfs/go-cid"
)

// Node is a running peer.
type Node struct {
	cfg   Config
	log   *slog.Logger
	began time.Time

	home     *home
	store    *chunkstore.Store
	journal  *journal
	net      *dht.Network
	exchange *chunkstore.Exchange
	pool     *sandbox.Pool // nil: no slots
	machine  *market.Machine
	owner    protocol.Signer

	driver    *driver
	commit    *diskCommitter
	content   *content
	pins      *pins
	prep      *preparer
	deaths    *deaths
	died      []market.DiedTask // what ran when the last meshd on this home died
	runner    *runner
	fetcher   *fetcher
	mender    *mender
	room      *room
	swarm     *swarm
	announcer *announcer
	query     *queries
	watchers  *watchers

	listener  *api.Listener
	servers   []*http.Server
	dashboard string // URL; empty: none

	ctx      context.Context // ends when Close begins
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	closing  sync.Once
	draining atomic.Bool
	over     chan struct{} // closed when there is nothing left to wait for
	fault    error         // why it ended by itself; set before over is closed
	ending   sync.Once
}

// New starts a peer. It returns when the peer can be reached by others and by its user; ctx bounds the start alone.
// Close must be called, also after Wait has returned.
func New(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, began: time.Now(), over: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	return n, nil
}

// open opens and starts everything. What it has opened when it fails, Close closes.
func (n *Node) open(ctx context.Context) (err error) {
	if n.home, err = openHome(n.cfg.disk, n.cfg.Home); err != nil {
		return err
	}
	if n.owner, err = newSigner(n.home.owner); err != nil {
		return err
	}
	entries, err := n.openDisk()
	if err != nil {
		return err
	}
	if err := n.openNetwork(); err != nil {
		return err
	}
	if err := n.openWork(entries); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return n.start()
}

// openDisk opens the store and the journal.
func (n *Node) openDisk() (entries []market.Entry, err error) {
	if n.cfg.Quota == 0 {
		if n.cfg.Quota, err = n.home.quota(); err != nil {
			return nil, err
		}
	}
	cfg := chunkstore.DefaultConfig(n.home.path(dirChunks))
	cfg.Quota, cfg.Slack, cfg.FS, cfg.Log = n.cfg.Quota-reserveOf(n.cfg.Quota), 0, n.home.fs, n.log
	n.mender = newMender(n)
	cfg.Damaged = n.mender.add
	if n.store, err = chunkstore.Open(cfg); err != nil {
		return nil, err
	}
	n.pins = newPins(n.store)
	if n.deaths, n.died, err = openDeaths(n.home.path(fileRunning), n.home.incarnation, n.log); err != nil {
		return nil, err
	}
	n.journal, entries, err = openJournal(n.home.fs, n.home.path(dirJournal), n.cfg.Repair, n.log)
	if err != nil {
		return nil, err
	}
	return entries, n.home.upgraded()
}

// openNetwork makes the peer's place in the mesh; it does not listen yet.
func (n *Node) openNetwork() (err error) {
	cfg, err := n.networkConfig()
	if err != nil {
		return err
	}
	if n.net, err = dht.New(cfg); err != nil {
		return err
	}
	n.exchange, err = chunkstore.NewExchange(n.net.Host(), n.store, chunkstore.ExchangeConfig{Log: n.log})
	if err != nil {
		return err
	}
	n.content = &content{
		store: n.store, exchange: n.exchange, self: n.home.peer, coming: make(map[cid.Cid][]byte),
		providers: n.providers, neighbours: n.neighbours,
	}
	return nil
}

// openWork makes the machine and what carries out its effects.
func (n *Node) openWork(entries []market.Entry) (err error) {
	files, err := newFileCache(n.home.path(dirFiles), n.home.path(dirLogs), fileCacheBytes, n.store)
	if err != nil {
		return err
	}
	if n.cfg.Slots > 0 {
		cfg := sandbox.DefaultConfig()
		cfg.Dir, cfg.Logs = n.home.path(dirSandbox), []string{n.home.path(dirLogs)}
		cfg.Slots, cfg.Child, cfg.Log = n.cfg.Slots, n.cfg.Child, n.log
		if n.pool, err = sandbox.New(cfg); err != nil {
			return err
		}
	}
	time := newClock()
	if n.machine, err = n.openMachine(time, entries); err != nil {
		return err
	}
	post := func(in market.Input) { n.driver.post(in) }
	n.swarm = newSwarm(n.net.Host(), n.cfg.Mesh, post, n.log)
	n.fetcher = newFetcher(n.cfg.Mesh, n.content, n.pins, post, n.log)
	n.prep = newPreparer(n.content, n.pins, files)
	n.runner = newRunner(n.cfg.Slots, uint64(n.cfg.Memory), n.prep, n.pool, n.deaths, post, n.log)
	n.announcer = newAnnouncer(n)
	n.watchers = newWatchers()
	n.query = newQueries(n)
	n.room = newRoom(n)
	n.commit = &diskCommitter{
		chunks: n.store, pins: n.pins, journal: n.journal, arrived: n.content.arrived,
		send: n.swarm.send, announce: n.announcer.add, changed: n.watchers.notify, closing: n.ctx.Done(), log: n.log,
	}
	n.commit.quota.Store(n.room.most())
	n.driver = newDriver(n.machine, outlets{
		run: n.runner.run, prefetch: n.runner.prefetch, stop: n.runner.stop, fetch: n.fetcher.start,
		probe: n.probe, expect: n.content.expect, commit: n.commit, compact: n.journal.grown,
	}, time, n.log)
	return nil
}

// openMachine restores the state machine from the journal.
func (n *Node) openMachine(c clock, entries []market.Entry) (*market.Machine, error) {
	signer, err := newSigner(n.home.identity)
	if err != nil {
		return nil, err
	}
	cfg := market.DefaultConfig()
	cfg.Signer, cfg.Codec = signer, protocol.Codec{Verifier: trusting{}}
	cfg.Mesh, cfg.Seed, cfg.Incarnation = n.cfg.Mesh, n.home.incarnation^seedOf(n.home.peer), n.home.incarnation
	cfg.Slots, cfg.Memory = n.cfg.Slots, uint64(n.cfg.Memory)
	return market.New(cfg, c.now(), entries)
}

// start sets everything going, the network last but one, the user's socket last.
func (n *Node) start() error {
	n.driver.start(func(err error) {
		n.fail(fmt.Errorf("node: this meshd stops, because what it must remember can't be written: %w", err))
	})
	if err := n.driver.settle(n.ctx, market.Died{Tasks: n.died}); err != nil { // before anything runs again
		return err
	}
	n.deaths.told()
	if err := n.net.Start(); err != nil {
		return err
	}
	n.wg.Go(n.announcer.work)
	n.wg.Go(n.keepHouse)
	n.wg.Go(n.mender.work)
	n.wg.Go(func() { n.store.Scrub(n.ctx) })
	if err := n.serveHTTP(); err != nil {
		return err
	}
	return n.serveAPI()
}

// fail ends Wait with a fault.
func (n *Node) fail(err error) {
	n.ending.Do(func() {
		n.fault = err
		if err != nil {
			n.log.Error("meshd stops", "error", err)
		}
		close(n.over)
	})
}

// Wait returns when the peer has to end: nil after a drain or Close, an error when it can't go on. Close is still to be
// called.
func (n *Node) Wait() error {
	<-n.over
	return n.fault
}

// Close ends the peer: running tasks are stopped, what is owed to other peers is sent and to the disk written. It takes
// some seconds at most; ctx cuts short what is only politeness.
func (n *Node) Close(ctx context.Context) error {
	var errs []error
	n.closing.Do(func() {
		n.fail(nil)
		n.cancel()
		n.closeServers(ctx)
		n.closeWork(ctx)
		errs = append(errs, n.closeNetwork(), n.closeDisk())
	})
	return errors.Join(errs...)
}

func (n *Node) closeWork(ctx context.Context) {
	if n.driver == nil {
		if n.runner != nil {
			n.runner.close()
		}
		return
	}
	n.leave(ctx)
	polite, cancel := context.WithTimeout(ctx, flushGrace)
	defer cancel()
	n.runner.close()
	n.fetcher.close()
	n.driver.close()
	n.swarm.flush(polite)
	n.query.close()
	n.swarm.close()
	n.wg.Wait()
}

// leave hands back what this peer holds. That it can't, because it has failed or never started, is no error here.
func (n *Node) leave(ctx context.Context) {
	if !n.driver.started.Load() || n.draining.Load() {
		return
	}
	if err := n.driver.settle(ctx, market.Leaving{}); err != nil {
		n.log.Debug("ranges not handed back", "error", err)
		return
	}
	n.parted(ctx)
}

// parted returns when nothing is left that only this peer has, and no finished result waits for a keeper; or when the
// context ends, or leaveGrace.
func (n *Node) parted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveGrace)
	defer cancel()
	look := time.NewTicker(leaveGrace / 400)
	defer look.Stop()
	for {
		busy := false
		if err := n.driver.ask(ctx, func(m machine) { busy = m.Busy() }); err != nil || !busy {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) closeNetwork() (err error) {
	if n.exchange != nil {
		err = n.exchange.Close()
	}
	if n.net != nil {
		err = errors.Join(err, n.net.Close())
	}
	if n.pool != nil {
		err = errors.Join(err, n.pool.Close())
	}
	return err
}

func (n *Node) closeDisk() (err error) {
	if n.store != nil {
		err = errors.Join(n.pins.flush(), n.store.Close())
	}
	if n.journal != nil {
		err = errors.Join(err, n.journal.Close())
	}
	if n.deaths != nil {
		err = errors.Join(err, n.deaths.close())
	}
	if n.home != nil {
		err = errors.Join(err, n.home.close())
	}
	return err
}

const (
	// leaveGrace is how long a peer that ends sees to it that others have what only it has: with flushGrace it is out
	// within 10 s.
	leaveGrace = 8 * time.Second
	// flushGrace is how long messages that wait at Close have to get out.
	flushGrace = 2 * time.Second
	// houseEvery is how often keepHouse looks; pins that no commit has made durable wait no longer.
	houseEvery = 2 * time.Second
	// releaseEvery is how often it looks for jobs that need nothing any more.
	releaseEvery = time.Minute
)

// keepHouse does what is due from time to time.
func (n *Node) keepHouse() {
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	last := time.Now()
	n.lookForRoom()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if err := n.pins.flush(); err != nil && !noRoom(err) { // for room it waits until the next time
			n.fail(err)
			return
		}
		if time.Since(last) >= releaseEvery {
			last = time.Now()
			n.lookForRoom()
			n.expireImports(last)
			n.releaseJobs()
		}
	}
}

func (n *Node) lookForRoom() {
	if err := n.room.look(n.ctx); err != nil && n.ctx.Err() == nil {
		n.log.Warn("what the quota has no room for can't be looked for", "error", err)
	}
}

// releaseJobs lets go of what was kept for jobs that need nothing of this peer any more.
func (n *Node) releaseJobs() {
	var sets []string
	if err := n.store.PinSets(func(set string) bool { sets = append(sets, set); return true }); err != nil {
		n.log.Warn("pins can't be read", "error", err)
		return
	}
	for _, set := range sets {
		id, ok := jobOfSet(set)
		if !ok {
			continue
		}
		if needed, err := n.needed(id, time.Now()); err != nil || needed {
			continue
		}
		if err := n.store.Unpin(set); err != nil {
			n.log.Warn("what was kept for a job stays", "job", id, "error", err)
		}
	}
}

// needed tells whether this peer keeps chunks for a job: it runs, or it has ended and this peer is one of its keepers,
// until its retention or the job expires.
func (n *Node) needed(id protocol.JobID, now time.Time) (bool, error) {
	r, err := n.report(n.ctx, id)
	if err != nil || r == nil {
		return false, err
	}
	var m *job.Manifest
	going, keeps := false, false
	if err := n.driver.ask(n.ctx, func(o machine) {
		if v, ok := o.View(id); ok {
			m, going, keeps = &v.Job.Manifest, v.Going, v.Keeps != 0
		}
	}); err != nil || m == nil {
		return false, err
	}
	if now.After(m.Expires) {
		return false, nil
	}
	if protocol.JobState(r.State) == protocol.JobRunning {
		return true, nil
	}
	end := time.UnixMilli(r.Ended)
	if end.Before(m.Created) { // it is dated by another peer's clock
		end = m.Created
	}
	return (r.Keeper || keeps || going) && now.Before(end.Add(m.Retention)), nil
}
