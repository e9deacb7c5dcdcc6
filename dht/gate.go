package dht

import (
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxRefused bounds the peers that a Gate refuses: a testnet has a hundred.
const MaxRefused = 1024

// ErrNoGate says that a peer has no Gate, and so refuses no peers on request.
var ErrNoGate = errors.New("this peer has no gate: it refuses no peers on request")

// Gate keeps a peer apart from some others, as a network that has parted would: it makes no connection to a peer that it
// refuses, and takes none. It is for tests: a peer that anybody relies on has none (Config.Gate is nil).
// A nil Gate refuses nobody.
type Gate struct {
	mu      sync.Mutex
	refused map[peer.ID]bool
}

// NewGate makes a Gate that refuses these peers, at most MaxRefused, until (*Network).Refuse says otherwise.
func NewGate(refused ...peer.ID) (*Gate, error) {
	g := new(Gate)
	_, err := g.set(refused)
	return g, err
}

func (g *Gate) refuses(p peer.ID) bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused[p]
}

// set makes these the peers that are refused, and returns those that were and are no more.
func (g *Gate) set(refused []peer.ID) (admitted []peer.ID, err error) {
	if len(refused) > MaxRefused {
		return nil, fmt.Errorf("dht: %d refused peers: want at most %d", len(refused), MaxRefused)
	}
	next := make(map[peer.ID]bool, len(refused))
	for _, p := range refused {
		next[p] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.refused {
		if !next[p] {
			admitted = append(admitted, p)
		}
	}
	g.refused = next
	return admitted, nil
}

// guard closes connections that the gate let through in the moment before it was told to refuse their peer: Refuse
// closes those that are there, guard sees those that come after.
func (g *Gate) guard() network.Notifiee {
	return &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if g.refuses(c.RemotePeer()) {
			go func() { _ = c.Close() }() // closing waits for notifications, of which this is one
		}
	}}
}

// Refuse makes these, at most MaxRefused, the peers that this one keeps apart from, in place of those before. When it
// returns, there is no connection to them and OnPeer is being told of their loss; those that are refused no more are
// being dialled, if they were known. It fails with ErrNoGate where Config has no Gate.
func (n *Network) Refuse(refused []peer.ID) error {
	gate := n.cfg.Gate
	if gate == nil {
		return fmt.Errorf("dht: refuse %d peers: %w", len(refused), ErrNoGate)
	}
	admitted, err := gate.set(refused)
	if err != nil {
		return err
	}
	var faults []error
	for _, p := range refused {
		if err := n.host.Network().ClosePeer(p); err != nil {
			faults = append(faults, fmt.Errorf("dht: part from %s: %w", p, err))
		}
		n.presence.gone(p)
	}
	n.dialer.retry(admitted)
	return errors.Join(faults...)
}
