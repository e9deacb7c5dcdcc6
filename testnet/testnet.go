package testnet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"golang.org/x/sync/errgroup"
)

const (
	// meetTimeout is how long peers may take to find each other.
	meetTimeout = 60 * time.Second
	// meetEnough is how many others a peer of a large testnet has to know before it
	// counts as joined: more than gossip needs for its mesh.
	meetEnough = 12
	// startsAtOnce is how many peers are started side by side: more only wait for the CPU.
	startsAtOnce = 4
	// answerTimeout is how long a peer may take to say how it is.
	answerTimeout = 5 * time.Second
)

// Config says what testnet is wanted.
type Config struct {
	Meshd string // the program
	Peers int    // 1 to MaxPeers
	Slots int    // of each peer; 0: they run nothing
}

// Validate tells all that is wrong with c.
func (c Config) Validate() error {
	var faults []error
	if stat, err := os.Stat(c.Meshd); err != nil {
		faults = append(faults, fmt.Errorf("testnet: no meshd: %w; build it with `make build`", err))
	} else if stat.IsDir() || stat.Mode()&0o111 == 0 {
		faults = append(faults, fmt.Errorf("testnet: %s is no program", c.Meshd))
	}
	if c.Peers < 1 || c.Peers > MaxPeers {
		faults = append(faults, fmt.Errorf("testnet: %d peers: give 1 to %d", c.Peers, MaxPeers))
	}
	if c.Slots < 0 {
		faults = append(faults, fmt.Errorf("testnet: %d slots: give 0 or more", c.Slots))
	}
	return errors.Join(faults...)
}

// Peer is how a peer of the testnet is.
type Peer struct {
	Index     int      `json:"index"`
	Home      string   `json:"home"`
	Log       string   `json:"log"`
	Running   bool     `json:"running"`
	PID       int      `json:"pid,omitempty"`
	Peer      string   `json:"peer,omitempty"`
	Addrs     []string `json:"addrs,omitempty"`
	Dashboard string   `json:"dashboard,omitempty"`
	Paused    bool     `json:"paused"`
	Answers   bool     `json:"answers"` // its API
	Peers     int      `json:"peers"`   // that it is connected to
	Tasks     int      `json:"tasks"`   // that it runs now
}

// Status is how the testnet is.
type Status struct {
	Dir  string `json:"dir"`
	Mesh string `json:"mesh"`
	// Partition is the groups of peers that refuse each other; empty: it is whole.
	Partition [][]int `json:"partition,omitempty"`
	Peers     []Peer  `json:"peers"`
}

// Up starts a testnet and returns when all its peers know each other. Where one is up
// already, with as many peers and all of them running, that is fine.
func (n Net) Up(ctx context.Context, c Config) (Status, error) {
	if err := c.Validate(); err != nil {
		return Status{}, err
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return Status{}, fmt.Errorf("testnet: %w", err)
	}
	unlock, err := lock(n.dir)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	if s, err := n.Status(ctx); err == nil {
		return s, s.same(c.Peers)
	} else if !errors.Is(err, ErrNotUp) {
		return Status{}, err
	}
	if left, err := os.ReadDir(n.dir); err != nil || len(left) > 0 {
		return Status{}, fmt.Errorf("testnet: %s is not empty and no testnet's: give another --dir", n.dir)
	}
	meshd, err := filepath.Abs(c.Meshd)
	if err != nil {
		return Status{}, fmt.Errorf("testnet: %w", err)
	}
	var name [4]byte
	rand.Read(name[:])
	p := plan{Mesh: "testnet-" + hex.EncodeToString(name[:]), Meshd: meshd, Slots: c.Slots}
	err = writeJSON(filepath.Join(n.dir, stateName), p)
	if err == nil {
		err = n.grow(ctx, p, 0, c.Peers)
	}
	if err != nil {
		return Status{}, errors.Join(err, n.clear(context.WithoutCancel(ctx)))
	}
	return n.Status(ctx)
}

// same tells what is wrong with a testnet that was up already, for who wants one.
func (s Status) same(peers int) error {
	for _, p := range s.Peers {
		if !p.Running {
			return fmt.Errorf("testnet: the testnet in %s is up, but peer %d does not run: restart it, or take the testnet down first", s.Dir, p.Index)
		}
	}
	if len(s.Peers) != peers {
		return fmt.Errorf("testnet: the testnet in %s is up with %d peers, not %d: add peers, or take it down first", s.Dir, len(s.Peers), peers)
	}
	return nil
}

// Add starts so many more peers, and returns when they know the others. A testnet that is
// parted takes none: they would be on no side.
func (n Net) Add(ctx context.Context, peers int) ([]Peer, error) {
	p, err := n.plan()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(n.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if parted, err := n.partition(); err != nil {
		return nil, err
	} else if len(parted.Groups) > 0 {
		return nil, fmt.Errorf("testnet: the testnet in %s is parted: heal it first", n.dir)
	}
	old, err := n.records()
	if err != nil {
		return nil, err
	}
	if peers < 1 || len(old)+peers > MaxPeers {
		return nil, fmt.Errorf("testnet: %d more peers: at most %d in all", peers, MaxPeers)
	}
	if err := n.grow(ctx, p, len(old), len(old)+peers); err != nil {
		return nil, err
	}
	s, err := n.Status(ctx)
	return s.Peers[min(len(old), len(s.Peers)):], err
}

// grow starts the peers lo to hi-1: peer 0 first, as the others join through it, or
// through any that runs where it does not.
func (n Net) grow(ctx context.Context, p plan, lo, hi int) error {
	if lo == 0 {
		if err := n.create(ctx, p, record{Index: 0}); err != nil {
			return err
		}
		lo = 1
	}
	bootstrap, err := n.bootstrap()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(startsAtOnce)
	for i := lo; i < hi; i++ {
		g.Go(func() error { return n.create(gctx, p, record{Index: i, Bootstrap: bootstrap}) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return n.meet(ctx)
}

// create starts a peer for the first time.
func (n Net) create(ctx context.Context, p plan, r record) error {
	if err := os.Mkdir(n.Home(r.Index), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("testnet: %w", err)
	}
	unlock, err := lock(n.Home(r.Index))
	if err != nil {
		return err
	}
	defer unlock()
	_, err = n.start(ctx, p, r)
	return err
}

// bootstrap is the one address that a new peer joins through.
func (n Net) bootstrap() (string, error) {
	all, err := n.records()
	if err != nil {
		return "", err
	}
	for _, r := range all {
		if len(r.Addrs) > 0 && r.alive() {
			return r.Addrs[0], nil
		}
	}
	return "", fmt.Errorf("testnet: no peer of the testnet in %s runs: restart one first", n.dir)
}

// meet waits until the peers that run know each other.
func (n Net) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	for {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		lonely := s.lonely()
		if lonely == nil {
			return nil
		}
		if pause(ctx) != nil {
			return fmt.Errorf("testnet: peer %d knows only %d others after %s: %s",
				lonely.Index, lonely.Peers, meetTimeout, tail(lonely.Log))
		}
	}
}

// lonely is a running peer that does not know enough others. Who is paused neither meets
// others nor counts.
func (s Status) lonely() *Peer {
	running := 0
	for _, p := range s.Peers {
		if p.Running && !p.Paused {
			running++
		}
	}
	for i, p := range s.Peers {
		if p.Running && !p.Paused && p.Peers < min(running-1, meetEnough) {
			return &s.Peers[i]
		}
	}
	return nil
}

// Status tells how all peers are.
func (n Net) Status(ctx context.Context) (Status, error) {
	p, err := n.plan()
	if err != nil {
		return Status{}, err
	}
	all, err := n.records()
	if err != nil {
		return Status{}, err
	}
	parted, err := n.partition()
	if err != nil {
		return Status{}, err
	}
	s := Status{Dir: n.dir, Mesh: p.Mesh, Partition: parted.Groups, Peers: make([]Peer, len(all))}
	var g errgroup.Group
	for i, r := range all {
		g.Go(func() error { s.Peers[i] = n.show(ctx, r); return nil })
	}
	return s, g.Wait()
}

// show asks a peer how it is.
func (n Net) show(ctx context.Context, r record) Peer {
	p := Peer{
		Index: r.Index, Home: n.Home(r.Index), Log: n.Log(r.Index),
		Running: r.alive(), Peer: r.Peer, Addrs: r.Addrs,
	}
	if !p.Running {
		return p
	}
	p.PID, p.Paused = r.PID, r.paused()
	if p.Paused {
		return p // it answers nothing
	}
	client, err := api.NewClient(p.Home)
	if err != nil {
		return p
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if self, err := client.Self(ctx); err == nil {
		p.Answers, p.Dashboard, p.Peers, p.Tasks = true, self.Dashboard, self.Peers, self.Running
	}
	return p
}

// Down ends all peers and removes all that Up and Add have made. A testnet that is not
// there is down already; while a chaos goes on it fails, as chaos would start peers anew.
func (n Net) Down(ctx context.Context) error {
	if _, err := n.plan(); errors.Is(err, ErrNotUp) {
		return nil
	}
	unlock, err := lock(n.dir)
	if err != nil {
		return err
	}
	defer unlock()
	calm, err := n.lockChaos()
	if errors.Is(err, ErrNotUp) {
		return nil // another took it down meanwhile
	}
	if err != nil {
		return err
	}
	defer calm()
	return n.clear(ctx)
}

// remove ends a peer for good, once nobody else starts or ends it. Nothing of it is wanted
// any more, so it is killed.
func (n Net) remove(ctx context.Context, i int) error {
	unlock, err := lock(n.Home(i))
	if err == nil {
		defer unlock()
	} else if !errors.Is(err, fs.ErrNotExist) { // a home that somebody has removed needs no lock
		return err
	}
	r, err := n.record(i)
	if err != nil {
		return err
	}
	if err := r.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if err := n.sweep(ctx, r); err != nil {
		return err
	}
	socket, fallback, err := api.SocketPath(n.Home(r.Index))
	if err != nil || !fallback {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("testnet: %w", err)
	}
	return nil
}

// clear ends all peers and removes the directory; the caller has its lock.
func (n Net) clear(ctx context.Context) error {
	homes, err := filepath.Glob(filepath.Join(n.dir, peerPrefix+"*"))
	if err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	all, err := n.records()
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, r := range all {
		g.Go(func() error { return n.remove(ctx, r.Index) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, path := range append(homes, filepath.Join(n.dir, partitionName), filepath.Join(n.dir, stateName)) {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("testnet: %w", err)
		}
	}
	if err := os.Remove(n.dir); err != nil {
		return fmt.Errorf("testnet: all peers are down, but %s is not empty: %w", n.dir, err)
	}
	return nil
}
