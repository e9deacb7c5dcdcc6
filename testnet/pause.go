package testnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// pauseTimeout is how long processes may take to stop once they are told to: the kernel
// stops them when they next run, or return from a system call that can't be broken off.
const pauseTimeout = 10 * time.Second

// errDown says that a peer does not run.
var errDown = errors.New("it does not run: restart it first")

// Pause stops peer i, meshd and its task processes, where they are (SIGSTOP), and returns
// when they have stopped. They keep their memory, connections and ports, and do nothing
// until Resume. Pausing what is paused changes nothing.
func (n Net) Pause(ctx context.Context, i int) error {
	r, unlock, err := n.hold(i)
	if err != nil {
		return err
	}
	defer unlock()
	if !r.alive() {
		return fmt.Errorf("testnet: pause peer %d: %w", i, errDown)
	}
	// Meshd first: once it has stopped, no process joins the session.
	if err := r.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	if err := r.stopped(ctx, []int{r.PID}); err != nil {
		return errors.Join(err, r.goOn())
	}
	all := r.session()
	err = r.signalAll(all, syscall.SIGSTOP)
	if err == nil {
		err = r.stopped(ctx, all)
	}
	if err != nil {
		return errors.Join(err, r.goOn())
	}
	return nil
}

// Resume lets a paused peer go on (SIGCONT), on its side of a partition that came
// meanwhile, and returns when its API answers. Resuming what is not paused changes nothing.
func (n Net) Resume(ctx context.Context, i int) error {
	r, unlock, err := n.hold(i)
	if err != nil {
		return err
	}
	defer unlock()
	if !r.alive() {
		return fmt.Errorf("testnet: resume peer %d: %w", i, errDown)
	}
	if err := r.goOn(); err != nil {
		return err
	}
	return n.part(ctx, r)
}

// goOn lets all that belongs to a peer go on: its tasks first, so that meshd does not wake
// to find them hung.
func (r record) goOn() error {
	all := slices.DeleteFunc(r.session(), func(pid int) bool { return pid == r.PID })
	return errors.Join(r.signalAll(all, syscall.SIGCONT), r.signal(syscall.SIGCONT))
}

// signalAll sends a signal to processes of a peer's session; those that have ended need none.
func (r record) signalAll(pids []int, s syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("testnet: signal %s to process %d of peer %d: %w", s, pid, r.Index, err)
		}
	}
	return nil
}

// stopped waits until each of these processes has stopped or ended.
func (r record) stopped(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		for {
			state, ok := processState(pid)
			if !ok || state.stopped {
				break
			}
			if err := pause(ctx); err != nil {
				return fmt.Errorf("testnet: process %d of peer %d does not stop: %w", pid, r.Index, err)
			}
		}
	}
	return nil
}

// paused tells whether meshd has been stopped.
func (r record) paused() bool {
	if !r.alive() {
		return false
	}
	state, ok := processState(r.PID)
	return ok && state.stopped
}
