package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/dht"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/multiformats/go-multiaddr"
)

const (
	// announceQueue bounds the announcements that wait to be sent: every open job of a busy keeper at once. They are
	// repeated each minute, so what does not fit is late, not lost.
	announceQueue = 1024
	// maxProvided bounds the jobs whose provider records are remembered: more than a peer keeps at a time.
	maxProvided = 2 * market.MaxJobs
	// providesAtOnce bounds provider records under way: each is some lookups.
	providesAtOnce = 4
)

// announcer signs announcements, publishes them, and has the job found in the DHT.
type announcer struct {
	n     *Node
	queue chan market.Announce
	slots chan struct{}

	mu       sync.Mutex
	provided map[protocol.JobID]time.Time
}

func newAnnouncer(n *Node) *announcer {
	return &announcer{
		n: n, queue: make(chan market.Announce, announceQueue), slots: make(chan struct{}, providesAtOnce),
		provided: make(map[protocol.JobID]time.Time),
	}
}

// add queues an announcement; it never waits.
func (a *announcer) add(q market.Announce) {
	select {
	case a.queue <- q:
	default:
		a.n.log.Warn("an announcement was dropped: too many wait", "job", q.Announcement.Job)
	}
}

func (a *announcer) work() {
	for {
		select {
		case <-a.n.ctx.Done():
			return
		case q := <-a.queue:
			a.announce(q.Announcement)
		}
	}
}

func (a *announcer) announce(q protocol.Announcement) {
	signed, err := a.sign(q)
	if err != nil {
		a.n.log.Error("a job could not be announced", "job", q.Job, "error", err)
		return
	}
	a.n.driver.post(market.Announced{Announcement: signed})
	a.provide(q.Job)
	if !a.n.cfg.Gossip {
		return
	}
	if err := a.n.net.Announce(a.n.ctx, signed.Raw); err != nil && !errors.Is(err, dht.ErrNoPeers) && a.n.ctx.Err() == nil {
		a.n.log.Debug("announcement not sent", "job", q.Job, "error", err)
	}
}

// sign adds addresses to an announcement, as many as fit, and signs it.
func (a *announcer) sign(q protocol.Announcement) (signed protocol.Announcement, err error) {
	for most := protocol.MaxAnnouncedAddrs; most >= 0; most-- {
		keepers := make([]protocol.KeeperAddrs, len(q.Keepers))
		for i, k := range q.Keepers {
			addrs := a.addrs(k.Peer)
			keepers[i] = protocol.KeeperAddrs{Peer: k.Peer, Addrs: addrs[:min(len(addrs), most)]}
		}
		q.Keepers = keepers
		signed, err = protocol.SignAnnouncement(a.n.swarmSigner(), q)
		if err == nil && len(signed.Raw) <= dht.MaxAnnouncement || err != nil && !errors.Is(err, protocol.ErrSize) {
			return signed, err
		}
	}
	return signed, err
}

// addrs are the addresses of a peer, those that others are likely to reach first.
func (a *announcer) addrs(p protocol.PeerID) (list []multiaddr.Multiaddr) {
	if p != a.n.home.peer {
		return a.n.net.Host().Peerstore().Addrs(p)
	}
	for _, addr := range a.n.net.Addrs() {
		bare, _ := multiaddr.SplitLast(addr) // /p2p/ID
		list = append(list, bare)
	}
	return list
}

// provide renews the job's provider record when it is due, in the background.
func (a *announcer) provide(id protocol.JobID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.provided[id]) < dht.ReprovideEvery {
		return
	}
	select {
	case a.slots <- struct{}{}:
	default:
		return // with the next announcement
	}
	if len(a.provided) >= maxProvided {
		clear(a.provided)
	}
	a.provided[id] = time.Now()
	a.n.wg.Go(func() {
		defer func() { <-a.slots }()
		err := a.n.net.Provide(a.n.ctx, id.CID())
		if err == nil {
			return
		}
		a.mu.Lock()
		delete(a.provided, id)
		a.mu.Unlock()
		if !errors.Is(err, context.Canceled) && !errors.Is(err, dht.ErrNoPeers) {
			a.n.log.Debug("job not provided", "job", id, "error", err)
		}
	})
}

// swarmSigner signs as this peer.
func (n *Node) swarmSigner() protocol.Signer { return signer{n.home.identity, n.home.peer} }
