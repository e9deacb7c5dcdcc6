package node

import (
	"context"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/dht"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
)

// userSet is the pin set of what the user pins by hand.
const userSet = "user"

// Cat implements api.Content.
func (b *backend) Cat(ctx context.Context, text string, w io.Writer) error {
	root, err := parseCID(text)
	if err != nil {
		return err
	}
	hold := b.n.store.Hold()
	defer hold.Release()
	if err := b.n.content.fetch(ctx, []cid.Cid{root}, source{}); err != nil {
		return explain(err)
	}
	r, err := b.n.store.FileReader(ctx, root)
	if err != nil {
		return explain(err)
	}
	_, err = r.WriteTo(w)
	return explain(err)
}

// Pin implements api.Content.
func (b *backend) Pin(ctx context.Context, text string) error {
	_, _, err := b.named(ctx, userSet, text)
	if err == nil {
		err = b.n.store.Sync(ctx)
	}
	return explain(err)
}

// Unpin implements api.Content.
func (b *backend) Unpin(_ context.Context, text string) error {
	root, err := parseCID(text)
	if err != nil {
		return err
	}
	pinned := false
	err = b.n.store.Pinned(userSet, func(c cid.Cid) bool { pinned = c == root; return !pinned })
	if err == nil && !pinned {
		return api.Errorf(api.KindNotFound, "%s is not pinned", root)
	}
	if err == nil {
		err = b.n.store.UnpinRoots(userSet, root)
	}
	return explain(err)
}

// Store implements api.Content.
func (b *backend) Store(context.Context) (api.Store, error) {
	u := b.n.store.Usage()
	s := api.Store{Chunks: uint64(u.Chunks), Bytes: uint64(u.Used), Quota: uint64(u.Quota)}
	if err := b.n.store.Pinned(userSet, func(cid.Cid) bool { s.Pinned++; return true }); err != nil {
		return s, explain(err)
	}
	free, err := b.n.home.fs.Free(b.n.home.dir)
	s.Free = uint64(max(free, 0))
	return s, err
}

// GC implements api.Content.
func (b *backend) GC(ctx context.Context) (api.GC, error) {
	before := b.n.store.Usage().Chunks
	freed, err := b.n.store.Collect(ctx)
	return api.GC{Chunks: uint64(max(0, before-b.n.store.Usage().Chunks)), Bytes: uint64(freed)}, explain(err)
}

// addrs are the peer's addresses as text, the best for others first.
func (n *Node) addrs() (list []string) {
	for _, a := range n.net.Addrs() {
		list = append(list, a.String())
	}
	return list
}

// Join is the command by which another machine joins the mesh through this peer.
func (n *Node) Join() string {
	command := "meshd"
	if n.cfg.Mesh != "default" {
		command += " --mesh " + n.cfg.Mesh
	}
	if addrs := n.addrs(); len(addrs) > 0 {
		command += " --bootstrap " + addrs[0]
	}
	return command
}

// Peer is the peer's ID, Owner that of the key that signs its user's jobs.
func (n *Node) Peer() protocol.PeerID  { return n.home.peer }
func (n *Node) Owner() protocol.PeerID { return n.home.ownerID }

// Addrs are the addresses by which others reach the peer, each with /p2p/ID.
func (n *Node) Addrs() []multiaddr.Multiaddr { return n.net.Addrs() }

// Dashboard is the URL below which /metrics is; empty: there is none.
func (n *Node) Dashboard() string { return n.dashboard }

// Socket is the path of the control API's socket.
func (n *Node) Socket() string { return n.listener.Path() }

// ID implements api.Network.
func (b *backend) ID(context.Context) (api.ID, error) {
	n := b.n
	return api.ID{
		Peer: n.home.peer.String(), Mesh: n.cfg.Mesh, Owner: n.home.ownerID.String(),
		Addrs: append([]string{}, n.addrs()...), Join: n.Join(),
	}, nil
}

// Connect implements api.Network.
func (b *backend) Connect(ctx context.Context, text string) (api.Peer, error) {
	info, err := dht.ParseAddr(text)
	if err != nil {
		return api.Peer{}, api.Errorf(api.KindInvalid, "%w", err)
	}
	if err := b.n.net.Connect(ctx, info); err != nil {
		if kind := api.KindOf(explain(err)); kind == api.KindInternal {
			return api.Peer{}, api.Errorf(api.KindUnavailable, "%w", err).WithAdvice("is meshd running there, and does its port get through?")
		}
		return api.Peer{}, explain(err)
	}
	for _, p := range b.n.net.Peers() {
		if p.ID == info.ID {
			return apiPeer(&p), nil
		}
	}
	return api.Peer{Peer: info.ID.String(), Addrs: []string{text}}, nil
}

func apiPeer(p *dht.Peer) api.Peer {
	out := api.Peer{
		Peer: p.ID.String(), Addrs: []string{p.Addr.String()}, RTT: float64(p.Latency) / float64(time.Millisecond),
		Agent: p.Agent, Inbound: p.Inbound,
	}
	_, err := p.Addr.ValueForProtocol(multiaddr.P_CIRCUIT)
	out.Relayed = err == nil
	return out
}

// Refuse implements api.Network.
func (b *backend) Refuse(_ context.Context, texts []string) error {
	if !b.n.cfg.TestNet {
		return api.Errorf(api.KindForbidden, "this meshd is no peer of a testnet: it refuses no peers on request")
	}
	refused, err := peerIDs(texts)
	if err != nil {
		return api.Errorf(api.KindInvalid, "%w", err)
	}
	return explain(b.n.net.Refuse(refused))
}

// Peers implements api.Network.
func (b *backend) Peers(context.Context) ([]api.Peer, error) {
	var list []api.Peer
	for _, p := range b.n.net.Peers() {
		list = append(list, apiPeer(&p))
	}
	return list, nil
}

// Self implements api.Daemon.
func (b *backend) Self(ctx context.Context) (api.Self, error) {
	n := b.n
	u := n.store.Usage()
	running, _ := n.runner.levels()
	s := api.Self{
		Peer: n.home.peer.String(), Mesh: n.cfg.Mesh, Owner: n.home.ownerID.String(), Home: n.home.dir,
		Socket: n.listener.Path(), Fallback: n.listener.Fallback(), Dashboard: n.dashboard, Addrs: append([]string{}, n.addrs()...),
		PID: os.Getpid(), Uptime: time.Since(n.began).Seconds(), Version: Version, Engine: sandbox.EngineName(),
		Slots: n.cfg.Slots, Running: running, Memory: uint64(n.cfg.Memory), Peers: n.net.Stats().Peers,
		Stored: uint64(u.Used), Quota: uint64(u.Quota), Draining: n.draining.Load(),
	}
	err := n.driver.ask(ctx, func(m machine) {
		for _, id := range m.Jobs() {
			if v, ok := m.View(id); ok && v.State == protocol.JobRunning {
				s.Jobs++
			}
		}
	})
	return s, explain(err)
}

// Version implements api.Daemon.
func (b *backend) Version(context.Context) (api.Version, error) {
	v := api.Version{Version: Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Engine: sandbox.EngineName()}
	if info, ok := debug.ReadBuildInfo(); ok {
		i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" })
		if i >= 0 {
			v.Commit = info.Settings[i].Value
		}
	}
	return v, nil
}

// Drain implements api.Daemon: ranges are handed back, running tasks are stopped, what this peer has to say is said.
func (b *backend) Drain(ctx context.Context) (api.Drained, error) {
	n := b.n
	if n.draining.Swap(true) {
		return api.Drained{}, api.Errorf(api.KindConflict, "this peer is draining already")
	}
	n.log.Info("draining: no new work")
	before := n.exchange.Stats().Total.ChunksOut
	err := n.driver.settle(ctx, market.Leaving{ForGood: true})
	n.parted(ctx)
	n.runner.close()
	n.swarm.flush(ctx)
	d := api.Drained{Chunks: uint64(n.exchange.Stats().Total.ChunksOut - before)}
	_ = n.driver.ask(ctx, func(m machine) { d.Ranges = uint64(m.Handed()) })
	time.AfterFunc(drainGrace, func() { n.fail(nil) })
	return d, explain(err)
}

// drainGrace is how long the answer to a drain has to reach its client.
const drainGrace = 100 * time.Millisecond
