package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"
)

// errAway: a holder could not be reached a moment ago, and is not dialled again yet.
var errAway = errors.New("not reached just now")

const (
	// awayFirst and awayLast bound the pause between two dials of a holder that is away: 250 ms, doubled up to 4 s. A dial
	// costs a packet or two and a holder that restarts is back within a second or two, while libp2p's own pause, 5 s at
	// first, grows to 5 minutes and would keep fetches from it long after.
	awayFirst = 250 * time.Millisecond
	awayLast  = 4 * time.Second
	// maxAway bounds the holders whose pauses are remembered; one forgotten is dialled once more than it need be.
	maxAway = 1024
)

// absence is how a holder that cannot be reached is tried again.
type absence struct {
	pause time.Duration
	until time.Time
}

// open opens a stream to a holder, dialling it if need be. How often a holder is tried that does not answer is decided here,
// whatever the host remembers of earlier dials.
func (x *Exchange) open(ctx context.Context, p peer.ID) (network.Stream, error) {
	if x.host.Network().Connectedness(p) != network.Connected {
		x.mu.Lock()
		a, known := x.away[p]
		x.mu.Unlock()
		if known && time.Now().Before(a.until) {
			return nil, errAway
		}
		if s, ok := x.host.Network().(*swarm.Swarm); ok {
			s.Backoff().Clear(p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, x.cfg.DialTimeout)
	defer cancel()
	s, err := x.host.NewStream(ctx, p, ProtocolID, ProtocolV1)
	if err == nil || errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
		x.mu.Lock()
		delete(x.away, p)
		x.mu.Unlock()
		return s, err
	}
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) { // else the fetch has ended
		x.miss(p, err)
	}
	return nil, fmt.Errorf("not reached: %w", err)
}

// miss notes that a holder could not be reached. It is logged once an absence.
func (x *Exchange) miss(p peer.ID, cause error) {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	a, known := x.away[p]
	switch {
	case !known:
		for len(x.away) >= maxAway {
			for other := range x.away {
				delete(x.away, other)
				break
			}
		}
		a.pause = awayFirst
		x.log.Debug("holder not reached", "peer", p, "cause", cause)
	case now.Before(a.until): // another fetch has dialled it at the same time
	default:
		a.pause = min(2*a.pause, awayLast)
	}
	a.until = now.Add(a.pause)
	x.away[p] = a
}
