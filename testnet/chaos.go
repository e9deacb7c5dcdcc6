package testnet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// calmTimeout bounds what chaos takes to heal all at its end: every peer started anew, one
// after another, on a busy machine.
const calmTimeout = 5 * time.Minute

// Chaos makes random faults for a time and calls report after each, with its error if it
// could not be made. All peers must be up, and the testnet whole, when it begins.
//
// Events come one after another at the times of their list or, on a slow machine, later:
// their order is kept, and so is what the list promises of how many are down at once. At the
// end, also when ctx ends, it heals everything: but for those in Keep, all peers are up
// and all that run know each other when it returns. Faults that could not be made, and
// peers that did not come back, are in its error.
func (n Net) Chaos(ctx context.Context, c ChaosConfig, report func(Event, error)) error {
	unlock, err := n.lockChaos()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := n.Status(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(c.validate(len(s.Peers)), s.calm()); err != nil {
		return err
	}
	faults := n.wreak(ctx, c.schedule(len(s.Peers)), report)
	healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), calmTimeout)
	defer cancel()
	faults = append(faults, n.healAll(healing, c.Keep))
	if err := errors.Join(faults...); err != nil {
		return err // also where it was interrupted: who did that has to know
	}
	return ctx.Err()
}

// lockChaos sees to it that there is one chaos at a time in a testnet. The lock is that
// of a file that lasts as long as the testnet, and ends with the process.
func (n Net) lockChaos() (unlock func(), err error) {
	if _, err := n.plan(); err != nil {
		return nil, err
	}
	unlock, err = tryLock(filepath.Join(n.dir, stateName))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("testnet: a chaos goes on in %s: interrupt it first, or wait", n.dir)
	}
	return unlock, err
}

// calm tells why a testnet is not as chaos has to find it.
func (s Status) calm() error {
	if len(s.Partition) > 0 {
		return fmt.Errorf("testnet: the testnet in %s is parted: heal it first", s.Dir)
	}
	for _, p := range s.Peers {
		switch {
		case !p.Running:
			return fmt.Errorf("testnet: chaos: peer %d: %w", p.Index, errDown)
		case p.Paused:
			return fmt.Errorf("testnet: chaos: peer %d is paused: resume it first", p.Index)
		}
	}
	return nil
}

// wreak does what a schedule says, until ctx ends.
func (n Net) wreak(ctx context.Context, events []Event, report func(Event, error)) (faults []error) {
	began := time.Now()
	for _, e := range events {
		timer := time.NewTimer(time.Until(began.Add(e.At)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return faults
		}
		err := n.do(ctx, e)
		if ctx.Err() != nil {
			return faults // broken off: healing is what is left to do
		}
		report(e, err)
		if errors.Is(err, ErrNotUp) {
			return faults // it was taken down; healing will say so
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("testnet: chaos: %s at %s: %w", e.Kind, e.At, err))
		}
	}
	return faults
}

func (n Net) do(ctx context.Context, e Event) error {
	switch e.Kind {
	case KindKill:
		if r, err := n.record(e.Peer); err == nil && !r.alive() {
			return fmt.Errorf("testnet: kill peer %d: it does not run: it has ended by itself", e.Peer)
		}
		return n.Kill(ctx, e.Peer)
	case KindRestart, KindStart:
		_, err := n.Restart(ctx, e.Peer)
		return err
	case KindPause:
		return n.Pause(ctx, e.Peer)
	case KindResume:
		return n.Resume(ctx, e.Peer)
	case KindPartition:
		return n.Partition(ctx, e.Groups)
	case KindHeal:
		return n.lift(ctx)
	}
	return fmt.Errorf("testnet: chaos: %q is no fault", e.Kind)
}

// healAll undoes every fault: peers in keep, which have none of chaos's, are left as they are.
func (n Net) healAll(ctx context.Context, keep []int) error {
	lifted := n.lift(ctx)
	if errors.Is(lifted, ErrNotUp) {
		return lifted
	}
	all, err := n.records()
	if err != nil {
		return errors.Join(lifted, err)
	}
	faults := []error{lifted}
	for _, r := range all {
		switch {
		case slices.Contains(keep, r.Index):
		case r.paused():
			faults = append(faults, n.Resume(ctx, r.Index))
		case !r.alive():
			_, err := n.Restart(ctx, r.Index)
			faults = append(faults, err)
		}
	}
	return errors.Join(append(faults, n.meet(ctx))...)
}
