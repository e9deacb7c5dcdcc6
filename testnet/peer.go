package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

const (
	// startTimeout is how long a peer may take from its start until its API answers: a
	// start takes well under a second, replaying a long journal on a busy machine more.
	startTimeout = 60 * time.Second
	// startAttempts is how often a start is tried that ends before the API answers. A
	// port that a peer had may be in use for a moment when it comes back.
	startAttempts = 3
	// stopTimeout is how long a peer may take to end by itself: meshd's own 10 s, twice.
	stopTimeout = 20 * time.Second
	// killTimeout is how long a killed peer's task processes may take to end.
	killTimeout = 10 * time.Second
)

// start starts peer r.Index on the ports that it has, or on free ones, and returns when
// its API answers; the record it returns is saved. The caller has the lock of its home.
func (n Net) start(ctx context.Context, p plan, r record) (record, error) {
	var err error
	for range startAttempts {
		var ended bool
		r, ended, err = n.startOnce(ctx, p, r)
		if err == nil || !ended {
			return r, err
		}
	}
	return r, err
}

// startOnce tells, in ended, whether the process ended by itself.
func (n Net) startOnce(ctx context.Context, p plan, r record) (_ record, ended bool, err error) {
	client, err := api.NewClient(n.Home(r.Index))
	if err != nil {
		return r, false, err
	}
	defer client.Close()
	refused, err := n.refused(r.Index)
	if err != nil {
		return r, false, err
	}
	started, gone, err := spawn(p.Meshd, n.arguments(p, r, refused), n.Log(r.Index))
	if err != nil {
		return r, false, err
	}
	r.PID, r.Started = started.PID, started.Started
	if err := n.save(r); err != nil {
		return r, false, errors.Join(err, n.stop(ctx, r, syscall.SIGKILL))
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		self, err := client.Self(ctx)
		if err == nil && self.PID == r.PID {
			return n.ready(ctx, client, r, self)
		}
		select {
		case <-gone:
			return r, true, fmt.Errorf("testnet: peer %d ended at its start: %s", r.Index, tail(n.Log(r.Index)))
		default:
		}
		if pause(ctx) != nil {
			err := outer.Err() // nil: its time is up
			if err == nil {
				err = fmt.Errorf("testnet: peer %d did not answer in time: %s", r.Index, tail(n.Log(r.Index)))
			}
			return r, false, errors.Join(err, n.stop(context.WithoutCancel(ctx), r, syscall.SIGKILL))
		}
	}
}

// ready takes down where the peer listens.
func (n Net) ready(ctx context.Context, client *api.Client, r record, self api.Self) (record, bool, error) {
	id, err := client.ID(ctx)
	if err != nil {
		return r, false, fmt.Errorf("testnet: peer %d: %w", r.Index, err)
	}
	r.Peer, r.Addrs, r.Listen = id.Peer, nil, nil
	for _, addr := range id.Addrs {
		if listen, _, ok := strings.Cut(addr, "/p2p/"); ok && strings.HasPrefix(listen, "/ip4/127.") {
			r.Addrs, r.Listen = append(r.Addrs, addr), append(r.Listen, listen)
		}
	}
	if len(r.Listen) == 0 {
		return r, false, fmt.Errorf("testnet: peer %d listens nowhere on loopback: %s", r.Index, strings.Join(id.Addrs, " "))
	}
	if u, err := url.Parse(self.Dashboard); err == nil && u.Host != "" {
		r.HTTP = u.Host
	}
	return r, false, n.save(r)
}

// arguments has whom the peer has to refuse in a partition: it must not meet them before
// its API can be asked.
func (n Net) arguments(p plan, r record, refused []string) []string {
	args := []string{"--home", n.Home(r.Index), "--mesh", p.Mesh, "--testnet", "--slots", strconv.Itoa(p.Slots)}
	listen, http := r.Listen, r.HTTP
	if len(listen) == 0 {
		listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	if http == "" {
		http = "127.0.0.1:0"
	}
	for _, l := range listen {
		args = append(args, "--listen", l)
	}
	args = append(args, "--http", http)
	if r.Bootstrap != "" {
		args = append(args, "--bootstrap", r.Bootstrap)
	}
	for _, id := range refused {
		args = append(args, "--refuse", id)
	}
	return args
}

// stop ends a peer with a signal and waits until it and its task processes are gone.
// After SIGTERM, what does not end in time is killed.
func (n Net) stop(ctx context.Context, r record, s syscall.Signal) error {
	if err := r.signal(s); err != nil {
		return err
	}
	if s != syscall.SIGKILL {
		if err := r.goOn(); err != nil { // a paused one would not see it
			return err
		}
		soft, cancel := context.WithTimeout(ctx, stopTimeout)
		err := r.gone(soft)
		cancel()
		if err == nil {
			return nil
		}
		if err := r.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	hard, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return r.gone(hard)
}

// sweep kills what is left of a peer's session.
func (n Net) sweep(ctx context.Context, r record) error {
	for _, pid := range r.session() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("testnet: kill process %d of peer %d: %w", pid, r.Index, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return r.gone(ctx)
}

// Kill kills meshd of peer i as a crash would (signal 9) and returns when it and its task
// processes are gone. A peer that does not run is left as it is.
func (n Net) Kill(ctx context.Context, i int) error {
	r, unlock, err := n.hold(i)
	if err != nil {
		return err
	}
	defer unlock()
	return n.stop(ctx, r, syscall.SIGKILL)
}

// Restart starts peer i again on the ports that it had, ending it first where it runs
// (SIGTERM), paused or not, and returns when its API answers.
func (n Net) Restart(ctx context.Context, i int) (Peer, error) {
	p, err := n.plan()
	if err != nil {
		return Peer{}, err
	}
	r, unlock, err := n.hold(i)
	if err != nil {
		return Peer{}, err
	}
	defer unlock()
	if err := n.stop(ctx, r, syscall.SIGTERM); err != nil {
		return Peer{}, err
	}
	r, err = n.start(ctx, p, r)
	return n.show(ctx, r), err
}

// hold takes the lock of a peer's home and reads its record.
func (n Net) hold(i int) (record, func(), error) {
	if _, err := n.plan(); err != nil {
		return record{}, nil, err
	}
	unlock, err := lock(n.Home(i))
	if errors.Is(err, os.ErrNotExist) {
		return record{}, nil, fmt.Errorf("testnet: the testnet in %s has no peer %d", n.dir, i)
	}
	if err != nil {
		return record{}, nil, err
	}
	r, err := n.record(i)
	if err != nil {
		unlock()
		return record{}, nil, err
	}
	return r, unlock, nil
}
