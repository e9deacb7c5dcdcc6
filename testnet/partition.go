package testnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"golang.org/x/sync/errgroup"
)

const (
	partitionName = "partition.json"
	// partTimeout is how long a peer may take to close its connections to others: it is
	// done at once, but a peer that was paused has first to catch up.
	partTimeout = 10 * time.Second
)

// partition is how the testnet is parted, for as long as it is: who starts or resumes a
// peer reads it, so that the peer is on its side before it can reach another.
type partition struct {
	Groups [][]int `json:"groups"` // every peer is in one
}

// partition reads how the testnet is parted; not at all: no groups.
func (n Net) partition() (partition, error) {
	var p partition
	err := readJSON(filepath.Join(n.dir, partitionName), &p)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return p, err
}

// apart tells whether peers i and j are in different groups.
func (p partition) apart(i, j int) bool {
	for _, g := range p.Groups {
		if slices.Contains(g, i) != slices.Contains(g, j) {
			return true
		}
	}
	return false
}

// newPartition checks groups of peers, and puts those that are in none into one more.
func newPartition(groups [][]int, peers int) (partition, error) {
	var p partition
	in := make([]bool, peers)
	add := func(g []int) {
		if len(g) > 0 {
			p.Groups = append(p.Groups, g)
		}
	}
	for _, g := range groups {
		for _, i := range g {
			switch {
			case i < 0 || i >= peers:
				return p, fmt.Errorf("testnet: partition: there is no peer %d: peers are 0 to %d", i, peers-1)
			case in[i]:
				return p, fmt.Errorf("testnet: partition: peer %d is named twice", i)
			}
			in[i] = true
		}
		add(slices.Sorted(slices.Values(g)))
	}
	var rest []int
	for i, named := range in {
		if !named {
			rest = append(rest, i)
		}
	}
	add(rest)
	if len(p.Groups) < 2 {
		return p, fmt.Errorf("testnet: partition: all %d peers would be in one group", peers)
	}
	return p, nil
}

// Partition parts the testnet: peers of different groups have no connection when it
// returns, and make none until Heal. Peers that are in no group form one together. A
// partition that was before is replaced. Peers that are down or paused join their side
// when they are restarted or resumed.
func (n Net) Partition(ctx context.Context, groups [][]int) error {
	return n.divide(ctx, func(peers int) error {
		p, err := newPartition(groups, peers)
		if err != nil {
			return err
		}
		return writeJSON(filepath.Join(n.dir, partitionName), p)
	})
}

// Heal ends a partition and returns when the peers that run know each other again.
func (n Net) Heal(ctx context.Context) error {
	if err := n.lift(ctx); err != nil {
		return err
	}
	return n.meet(ctx)
}

// lift ends a partition: the peers dial each other, and may not have met when it returns.
func (n Net) lift(ctx context.Context) error {
	return n.divide(ctx, func(int) error {
		err := os.Remove(filepath.Join(n.dir, partitionName))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("testnet: %w", err)
		}
		return nil
	})
}

// divide changes what is written of the partition, and tells the peers. Each is told
// under the lock of its home, so that one that is being started has read either what is
// written now, or is told now.
func (n Net) divide(ctx context.Context, write func(peers int) error) error {
	if _, err := n.plan(); err != nil {
		return err
	}
	unlock, err := lock(n.dir)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := n.records()
	if err != nil {
		return err
	}
	if err := write(len(all)); err != nil {
		return err
	}
	var g errgroup.Group
	faults := make([]error, len(all))
	for i := range all {
		g.Go(func() error {
			r, unlock, err := n.hold(i)
			if err == nil {
				defer unlock()
				err = n.part(ctx, r)
			}
			faults[i] = err
			return nil
		})
	}
	return errors.Join(g.Wait(), errors.Join(faults...))
}

// part tells a peer, if it can be told now, whom it has to refuse. The caller has the lock
// of its home.
func (n Net) part(ctx context.Context, r record) error {
	if !r.alive() || r.paused() {
		return nil // it is told when it is restarted or resumed
	}
	refused, err := n.refused(r.Index)
	if err != nil {
		return err
	}
	client, err := api.NewClient(n.Home(r.Index))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	if err := client.Refuse(ctx, refused); err != nil && r.alive() {
		return fmt.Errorf("testnet: peer %d is not told of the partition: %w", r.Index, err)
	}
	return nil
}

// refused are the IDs of the peers that peer i has to refuse.
func (n Net) refused(i int) ([]string, error) {
	p, err := n.partition()
	if err != nil || len(p.Groups) == 0 {
		return nil, err
	}
	all, err := n.records()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range all {
		if p.apart(i, r.Index) && r.Peer != "" { // one that never came up has no ID
			ids = append(ids, r.Peer)
		}
	}
	return ids, nil
}
