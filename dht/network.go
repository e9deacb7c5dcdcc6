// Package dht joins a peer to a mesh: it holds the libp2p host, finds other peers and stays connected to them, tells
// who has which content, and carries announcements.
//
// It promises: in a mesh of up to Config.TargetDegree+1 peers, everybody who knows one address soon is connected to
// everybody; larger meshes keep a bounded number of connections and reach the rest through a Kademlia table. A peer
// whose bootstrap is gone comes back through peers it has met. Only Ed25519 identities are admitted, peers of another
// mesh are told apart and sent away, and everything a remote peer can make this process hold has a limit.
//
// What it hands out are hints: provider records may be stale or lies, announcements may be lost. It signs and checks
// no content (Config.Judge does), and knows nothing of jobs and chunks: their protocols are set on Host between New
// and Start.
//
// Connections are TCP with Noise (TLS offered); QUIC is listened on and dialled last. WebTransport, WebRTC, WebSocket
// and pre-shared keys are left out.
package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"
)

const (
	// upkeepEvery is how often a random neighbour is asked for others (300 bytes a peer it names), and counters of
	// peers that are gone are dropped.
	upkeepEvery = time.Minute
	// saveAfter is how long a new acquaintance waits to be written down, so that a mesh met in one go is one write.
	saveAfter = 2 * time.Second
	// tableRefresh is how often the Kademlia table is looked over: a lookup a bucket. Connections tell of peers that
	// are gone much sooner.
	tableRefresh = 30 * time.Minute
	// probeTimeout bounds Probe: dialling, handshake and one round trip.
	probeTimeout = 5 * time.Second
)

// Network is a peer's place in its mesh. Make it with New, set protocol handlers on Host, then Start. All methods may
// be called from several goroutines.
type Network struct {
	cfg      Config
	log      *slog.Logger
	host     host.Host
	exchange protocol.ID
	table    *kad.IpfsDHT
	gossip   *gossip // nil: off
	presence *presence
	dialer   *dialer
	known    *known
	traffic  *traffic

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // goroutines that end with ctx
	closing sync.Once
	lan     mdns.Service // nil: none
	started bool
}

// New makes a peer that neither listens nor dials yet. Close ends what it makes.
func New(cfg Config) (*Network, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Agent == "" {
		cfg.Agent = "meshd"
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	met, err := openKnown(cfg.PeersFile)
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, log: cfg.Log, known: met, traffic: newTraffic(), exchange: exchangeProtocol(cfg.Mesh)}
	if n.host, err = newHost(cfg, n.traffic); err != nil {
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.presence = newPresence(n.host, cfg, n.peerChanged)
	n.dialer = newDialer(cfg.TargetDegree, n.presence.count, n.reach, n.log)
	n.dialer.gate = cfg.Gate
	if n.table, err = newTable(n.host, cfg); err == nil && cfg.Gossip {
		n.gossip, err = newGossip(n.ctx, n.host, cfg, n.log)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.host.SetStreamHandler(n.exchange, n.answer)
	return n, nil
}

// newTable makes the Kademlia table: every peer serves, values are off, addresses of loopback interfaces are shared
// only by peers that listen on one by choice (a mesh within one machine).
func newTable(h host.Host, cfg Config) (*kad.IpfsDHT, error) {
	local := slices.ContainsFunc(cfg.Listen, onLoopback)
	table, err := kad.New(h,
		kad.ProtocolPrefix(protocol.ID("/mesh/"+cfg.Mesh)),
		kad.Mode(kad.ModeServer),
		kad.BootstrapPeers(),
		kad.DisableValues(),
		kad.BucketSize(cfg.bucketSize),
		kad.RoutingTableRefreshPeriod(tableRefresh),
		kad.AddressFilter(func(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr { return dialable(addrs, local) }),
		kad.ProviderDatastore(newProviderStore(maxProviderRecords)),
		kad.ProviderManagerOpts(records.ProvideValidity(ProvideValidity)),
	)
	if err != nil {
		return nil, fmt.Errorf("dht: kademlia: %w", err)
	}
	return table, nil
}

// Start listens and begins to look for peers. It returns when the peer can be reached; peers come later (OnPeer).
func (n *Network) Start() error {
	if n.ctx.Err() != nil || n.started {
		return errors.New("dht: start: closed, or started before")
	}
	events, err := n.presence.subscribe()
	if err != nil {
		return err
	}
	n.started = true
	n.wg.Go(func() { defer events.Close(); n.presence.watch(n.ctx, events) })
	n.wg.Go(func() { n.presence.tell(n.ctx) })
	if err := n.listen(); err != nil {
		return err
	}
	for _, info := range n.known.peers() {
		if info.ID != n.ID() {
			n.dialer.add(info, remembered)
		}
	}
	for _, info := range n.cfg.Bootstrap {
		if info.ID != n.ID() {
			n.dialer.add(info, chosen)
		}
	}
	n.wg.Go(func() { n.dialer.run(n.ctx) })
	n.wg.Go(n.upkeep)
	n.wg.Go(n.remember)
	if n.gossip != nil {
		n.wg.Go(func() { n.gossip.receive(n.ctx) })
	}
	if n.cfg.LANDiscovery {
		n.discoverLAN()
	}
	return nil
}

// listen opens every address it can; it fails if it can open none.
func (n *Network) listen() error {
	var faults []error
	for _, a := range n.cfg.Listen {
		if err := n.host.Network().Listen(a); err != nil {
			faults = append(faults, fmt.Errorf("dht: listen on %s: %w", a, err))
		}
	}
	if len(faults) > 0 && len(faults) == len(n.cfg.Listen) {
		return errors.Join(faults...)
	}
	for _, err := range faults {
		n.log.Warn("cannot listen on an address", "error", err)
	}
	return nil
}

// discoverLAN looks for peers by multicast DNS, where the network has it.
func (n *Network) discoverLAN() {
	lan := mdns.NewMdnsService(n.host, "_mesh-"+n.cfg.Mesh+"._udp", lanPeers{n})
	if err := lan.Start(); err != nil {
		n.log.Info("no discovery on the local network", "error", err)
		return
	}
	n.lan = lan
}

type lanPeers struct{ *Network }

func (l lanPeers) HandlePeerFound(info peer.AddrInfo) {
	info.Addrs = dialable(info.Addrs, true)
	if info.ID != l.ID() && isEd25519(info.ID) && len(info.Addrs) > 0 {
		l.dialer.add(info, named)
	}
}

// Close leaves the mesh and returns when every goroutine has ended. What is remembered of peers is written.
func (n *Network) Close() error {
	var err error
	n.closing.Do(func() {
		n.cancel()
		n.presence.close()
		if n.lan != nil {
			err = n.lan.Close()
		}
		n.wg.Wait()
		if n.table != nil {
			err = errors.Join(err, n.table.Close())
		}
		err = errors.Join(err, n.host.Close(), n.known.save())
	})
	return err
}

// Host is the libp2p host, on which the application sets its protocols, between New and Start, and opens streams.
// Its protocol IDs must contain the mesh's name (see Protocol). Closing it is Close's business.
func (n *Network) Host() host.Host { return n.host }

// Protocol is the ID of a protocol of this mesh: /mesh/NAME/ and the given name with its version, "market/1.0.0".
func (n *Network) Protocol(name string) protocol.ID {
	return protocol.ID("/mesh/" + n.cfg.Mesh + "/" + name)
}

// ID is this peer's ID.
func (n *Network) ID() peer.ID { return n.host.ID() }

// Addrs are the addresses that others can type to reach this peer, /p2p/ID included, those of loopback last.
func (n *Network) Addrs() []multiaddr.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: n.ID(), Addrs: n.host.Addrs()})
	if err != nil {
		return nil
	}
	rank := func(a multiaddr.Multiaddr) int {
		r := 0
		if onLoopback(a) {
			r += 2
		}
		if isQUIC(a) {
			r++
		}
		return r
	}
	slices.SortStableFunc(addrs, func(a, b multiaddr.Multiaddr) int { return rank(a) - rank(b) })
	return addrs
}

// Connect reaches a peer of this mesh, and from then on keeps the connection: it is dialled again when lost, until
// this process ends. It fails with ErrSelf, ErrKeyType or ErrOtherMesh (an *OtherMeshError), or if nobody answers.
func (n *Network) Connect(ctx context.Context, info peer.AddrInfo) error {
	switch {
	case info.ID == n.ID():
		return fmt.Errorf("dht: connect to %s: %w", info.ID, ErrSelf)
	case !isEd25519(info.ID):
		return fmt.Errorf("dht: connect to %s: %w", info.ID, ErrKeyType)
	}
	if err := n.reach(ctx, info); err != nil {
		return err
	}
	n.dialer.add(info, chosen)
	return nil
}

// reach connects to a peer and checks that it is of this mesh.
func (n *Network) reach(ctx context.Context, info peer.AddrInfo) error {
	n.forgive(info.ID)
	if err := n.host.Connect(ctx, info); err != nil {
		return fmt.Errorf("dht: connect to %s: %w", info.ID, err)
	}
	if n.presence.isUp(info.ID) {
		return nil
	}
	return n.presence.recognise(info.ID)
}

// forgive makes the host dial p now, even if that has just failed: how often to try is decided here.
func (n *Network) forgive(p peer.ID) {
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(p)
	}
}

// Probe finds out whether p is alive: it dials unless connected, and waits for one round trip, 5 s in all at most.
func (n *Network) Probe(ctx context.Context, p peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	n.forgive(p)
	if err := n.host.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
		return fmt.Errorf("dht: probe %s: %w", p, err)
	}
	if err := n.roundTrip(ctx, p); err != nil {
		return fmt.Errorf("dht: probe %s: %w", p, err)
	}
	return nil
}

// roundTrip waits for a ping over an existing connection. The time it takes goes into the peerstore, where Peers
// finds it.
func (n *Network) roundTrip(ctx context.Context, p peer.ID) error {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "ping"), probeTimeout)
	defer cancel()
	select {
	case r := <-ping.Ping(ctx, n.host, p):
		return r.Error
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Protect keeps the connection to p from being closed as surplus, until Unprotect with the same tag.
func (n *Network) Protect(p peer.ID, tag string) { n.host.ConnManager().Protect(p, tag) }

// Unprotect takes back Protect; the connection may still be protected under another tag.
func (n *Network) Unprotect(p peer.ID, tag string) { n.host.ConnManager().Unprotect(p, tag) }

// Provide tells the mesh that this peer has the content c, for ProvideValidity. Fails with ErrNoPeers when there is
// nobody to tell; takes 15 s at most.
func (n *Network) Provide(ctx context.Context, c cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, provideTimeout)
	defer cancel()
	alone := !n.tabled(ctx)
	if err := n.table.Provide(ctx, c, !alone); err != nil {
		return fmt.Errorf("dht: provide %s: %w", c, err)
	}
	if alone {
		return fmt.Errorf("dht: provide %s: %w", c, ErrNoPeers)
	}
	return nil
}

// FindProviders returns up to want other peers (at most 32) that say they have the content c, as soon as there are so
// many, and after 5 s what there is. None is no error.
func (n *Network) FindProviders(ctx context.Context, c cid.Cid, want int) ([]peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	if !c.Defined() {
		return nil, errors.New("dht: find providers: undefined CID")
	}
	want = min(max(want, 1), maxProviders)
	n.tabled(ctx)
	var found []peer.AddrInfo
	// One more than wanted: this peer may be among them.
	for info := range n.table.FindProvidersAsync(ctx, c, want+1) {
		if info.ID != n.ID() && isEd25519(info.ID) && len(found) < want {
			found = append(found, info)
		}
		if len(found) == want {
			cancel() // and read on until the channel is closed: the search has ended then
		}
	}
	return found, nil
}

// tabled tells whether the Kademlia table has anybody. A peer that has just connected is waited for, readyWait at
// most: it enters the table after a round trip.
func (n *Network) tabled(ctx context.Context) bool {
	deadline := time.After(readyWait)
	tick := time.NewTicker(readyStep)
	defer tick.Stop()
	for n.table.RoutingTable().Size() == 0 && n.presence.count() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return n.table.RoutingTable().Size() > 0
}

// Announce sends a payload to the mesh: everybody's Judge sees it, and OnAnnouncement if it is accepted. It waits up
// to 2 s for peers that have only just been found. Fails with ErrTooLarge, with ErrNoPeers if nobody listens, or if the
// own Judge does not accept. Arrival is not promised.
func (n *Network) Announce(ctx context.Context, payload []byte) error {
	if n.gossip == nil {
		return errors.New("dht: announce: gossip is switched off")
	}
	return n.gossip.announce(ctx, payload, func(listening []peer.ID) bool {
		return n.presence.settled(readyWait, listening) && n.dialer.settled()
	})
}

// peerChanged follows peers of the mesh as they come and go.
func (n *Network) peerChanged(p peer.ID, up bool) {
	if up {
		info := peer.AddrInfo{ID: p, Addrs: n.addrsOf(p)}
		n.dialer.connected(info)
		n.known.meet(info)
		n.wg.Go(func() { n.greet(p) })
	} else {
		n.dialer.lost(p)
	}
	n.log.Debug("peer", "peer", p, "up", up)
	if n.cfg.OnPeer != nil {
		n.cfg.OnPeer(p, up)
	}
}

// greet asks a peer that this one has dialled for others (who dialled us asks us), and measures the way to it.
func (n *Network) greet(p peer.ID) {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirOutbound {
			n.learn(p)
			break
		}
	}
	n.presence.greeted(p)
	if err := n.roundTrip(n.ctx, p); err != nil {
		n.log.Debug("new peer does not answer", "peer", p, "error", err)
	}
}

// learn asks p for other peers, while more are wanted.
func (n *Network) learn(p peer.ID) {
	if n.presence.count() >= n.cfg.TargetDegree {
		return
	}
	found, err := n.ask(n.ctx, p)
	if err != nil {
		n.log.Debug("peer names no others", "peer", p, "error", err)
		return
	}
	for _, info := range found {
		if !n.presence.isUp(info.ID) {
			n.dialer.add(info, named)
		}
	}
}

// upkeep now and then asks somebody for others, so that peers that missed one another meet, and what a partition
// parted grows together.
func (n *Network) upkeep() {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		n.traffic.retain(func(p peer.ID) bool { return n.host.Network().Connectedness(p) == network.Connected })
		peers := n.presence.peers()
		if len(peers) > 0 {
			n.learn(peers[rand.IntN(len(peers))])
		}
		for _, p := range peers {
			n.known.meet(peer.AddrInfo{ID: p, Addrs: n.addrsOf(p)})
		}
	}
}

// remember writes known peers down a little after each change.
func (n *Network) remember() {
	tick := time.NewTicker(saveAfter)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
			if err := n.known.save(); err != nil {
				n.log.Warn("cannot write down known peers", "error", err)
			}
		}
	}
}
