package node

import (
	"context"
	"fmt"
	"time"

	"github.com/compute-mesh/mesh/dht"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// heardFor is how long addresses that an announcement names are worth dialling: it is repeated each minute.
	heardFor = 10 * time.Minute
	// greetTimeout bounds the connection to a keeper that was heard of.
	greetTimeout = 10 * time.Second
	// greetsAtOnce bounds such connections under way.
	greetsAtOnce = 8
	// clockSkew is how far in the future an announcement may be dated: clocks of volunteers are off by minutes.
	clockSkew = 24 * time.Hour
)

// networkConfig is the configuration of the peer's place in the mesh.
func (n *Node) networkConfig() (dht.Config, error) {
	cfg := dht.DefaultConfig()
	cfg.Mesh, cfg.Key, cfg.PeersFile = n.cfg.Mesh, n.home.identity, n.home.path(filePeers)
	cfg.LANDiscovery, cfg.Gossip, cfg.Log = n.cfg.LAN, n.cfg.Gossip, n.log
	cfg.Agent = "meshd/" + Version
	if len(n.cfg.Listen) > 0 {
		cfg.Listen = nil
		for _, text := range n.cfg.Listen {
			a, err := multiaddr.NewMultiaddr(text)
			if err != nil {
				return cfg, fmt.Errorf("node: config: listen address %q: %w", text, err)
			}
			cfg.Listen = append(cfg.Listen, a)
		}
	}
	for _, text := range n.cfg.Bootstrap {
		info, err := dht.ParseAddr(text)
		if err != nil {
			return cfg, err
		}
		cfg.Bootstrap = append(cfg.Bootstrap, info)
	}
	if n.cfg.TestNet {
		refused, err := peerIDs(n.cfg.Refuse)
		if err != nil {
			return cfg, fmt.Errorf("node: config: refuse: %w", err)
		}
		if cfg.Gate, err = dht.NewGate(refused...); err != nil {
			return cfg, err
		}
	}
	codec := protocol.Codec{Verifier: protocol.NewSeen(nil, market.MaxAnnounced)}
	cfg.Judge = func(payload []byte) dht.Verdict { return judge(codec, payload, time.Now()) }
	greeting := make(chan struct{}, greetsAtOnce)
	cfg.OnAnnouncement = func(_ peer.ID, payload []byte) {
		if a, err := codec.OpenAnnouncement(payload); err == nil {
			n.heard(a, greeting)
		}
	}
	cfg.OnPeer = func(p peer.ID, up bool) {
		if up {
			n.driver.post(market.PeerUp{Peer: p})
		} else {
			n.driver.post(market.PeerDown{Peer: p})
		}
	}
	return cfg, nil
}

// peerIDs reads peer IDs as text.
func peerIDs(texts []string) ([]peer.ID, error) {
	list := make([]peer.ID, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = peer.Decode(text); err != nil {
			return nil, fmt.Errorf("%.80q is no peer ID: %w", text, err)
		}
	}
	return list, nil
}

// judge says whether an announcement is passed on.
func judge(c protocol.Codec, payload []byte, now time.Time) dht.Verdict {
	a, err := c.OpenAnnouncement(payload)
	switch {
	case err != nil:
		return dht.Reject
	case a.Expires <= now.UnixMilli(), a.Time > now.Add(clockSkew).UnixMilli():
		return dht.Ignore
	}
	return dht.Accept
}

// heard takes an announcement from gossip: to the machine, and with the addresses of the job's keepers.
func (n *Node) heard(a protocol.Announcement, greeting chan struct{}) {
	h := n.net.Host()
	for _, k := range a.Keepers {
		if k.Peer == n.home.peer || len(k.Addrs) == 0 {
			continue
		}
		h.Peerstore().AddAddrs(k.Peer, k.Addrs, heardFor)
		if h.Network().Connectedness(k.Peer) == network.Connected {
			continue
		}
		select {
		case greeting <- struct{}{}:
			go func() {
				defer func() { <-greeting }()
				ctx, cancel := context.WithTimeout(n.ctx, greetTimeout)
				defer cancel()
				if err := h.Connect(ctx, peer.AddrInfo{ID: k.Peer}); err != nil {
					n.log.Debug("keeper not reached", "peer", k.Peer, "job", a.Job, "error", err)
				}
			}()
		default: // it is met when it is needed
		}
	}
	n.driver.post(market.Announced{Announcement: a})
}

// probe finds out whether peers are alive; it does not wait.
func (n *Node) probe(list []protocol.PeerID) {
	for _, p := range list {
		go func() {
			err := n.net.Probe(n.ctx, p)
			n.driver.post(market.Probed{Peer: p, Alive: err == nil})
		}()
	}
}

func (n *Node) providers(ctx context.Context, c cid.Cid, want int) (list []protocol.PeerID) {
	found, err := n.net.FindProviders(ctx, c, want)
	if err != nil {
		n.log.Debug("no providers", "chunk", c, "error", err)
	}
	for _, info := range found {
		list = append(list, info.ID)
		n.net.Host().Peerstore().AddAddrs(info.ID, info.Addrs, heardFor)
	}
	return list
}

func (n *Node) neighbours() (list []protocol.PeerID) {
	for _, p := range n.net.Peers() {
		list = append(list, p.ID)
	}
	return list
}
