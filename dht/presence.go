package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

const (
	// strangerGrace is how long a peer of another mesh stays connected: time for it, too, to see whom it has reached,
	// and say so.
	strangerGrace = 2 * time.Second
	// eventQueue holds the host's events until presence has seen them: a handful a connection, of the peers that
	// connect in one go. The host waits when it is full; presence never waits.
	eventQueue = 256
	// peerTag marks peers of this mesh for the connection manager: guests go first.
	peerTag, peerTagValue = "mesh", 20
)

// presence knows which connected peers speak this mesh's protocol. It is told of levels (who is up now, in which
// incarnation of its connection), and turns them into calls of onPeer, so that nobody waits for the callback.
type presence struct {
	host   host.Host
	mesh   string
	guests []protocol.ID
	log    *slog.Logger
	onPeer func(peer.ID, bool)

	mu      sync.Mutex
	up      map[peer.ID]arrival // connected peers of this mesh
	told    map[peer.ID]uint64  // what onPeer was told: the serials of the peers it knows to be up
	serial  uint64
	changed chan struct{} // one token: up and told may differ
	leaving map[peer.ID]*time.Timer
	closed  bool
}

// arrival tells one connection of a peer from the next.
type arrival struct {
	serial  uint64
	at      time.Time
	greeted bool // and asked for other peers, if it was to be
}

func newPresence(h host.Host, cfg Config, onPeer func(peer.ID, bool)) *presence {
	return &presence{
		host: h, mesh: cfg.Mesh, guests: cfg.Guests, log: cfg.Log, onPeer: onPeer,
		up: make(map[peer.ID]arrival), told: make(map[peer.ID]uint64),
		changed: make(chan struct{}, 1),
		leaving: make(map[peer.ID]*time.Timer),
	}
}

// watch follows the host's events until ctx ends.
func (s *presence) watch(ctx context.Context, events event.Subscription) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events.Out():
			if !open {
				return
			}
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				s.identified(e.Peer)
			case event.EvtPeerProtocolsUpdated:
				s.identified(e.Peer)
			case event.EvtPeerConnectednessChanged:
				if e.Connectedness == network.NotConnected {
					s.left(e.Peer)
				}
			}
		}
	}
}

func (s *presence) subscribe() (event.Subscription, error) {
	sub, err := s.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
		new(event.EvtPeerConnectednessChanged),
	}, eventbus.BufSize(eventQueue), eventbus.Name("mesh presence"))
	if err != nil {
		return nil, fmt.Errorf("dht: host events: %w", err)
	}
	return sub, nil
}

// identified sorts a peer whose protocols are known: of this mesh, a guest, or a stranger, who has to leave.
func (s *presence) identified(p peer.ID) {
	err := s.recognise(p)
	if err == nil {
		s.mu.Lock()
		s.pardon(p) // it may have been given the protocols that it lacked
		s.mu.Unlock()
		s.arrived(p)
		return
	}
	s.gone(p) // it may have been of this mesh before it was started anew
	var stranger *OtherMeshError
	if errors.Is(err, ErrOtherVersion) || errors.As(err, &stranger) && (stranger.Mesh != "" || !s.isGuest(p)) {
		s.dismiss(p, err)
	}
}

// recognise returns nil for a peer of this mesh, else an *OtherMeshError or *OtherVersionError. Identify must have ended.
func (s *presence) recognise(p peer.ID) error {
	protocols, err := s.host.Peerstore().GetProtocols(p)
	if err != nil {
		return fmt.Errorf("dht: protocols of peer %s: %w", p, err)
	}
	if err := s.otherVersion(p, protocols); err != nil {
		return err
	}
	stranger := &OtherMeshError{Peer: p, Agent: agentOf(s.host, p)}
	for _, proto := range protocols {
		switch name := meshOf(proto); name {
		case "":
		case s.mesh:
			return nil
		default:
			stranger.Mesh = name
		}
	}
	return stranger
}

// otherVersion is an *OtherVersionError where a peer of this mesh speaks one of this host's protocols in other versions alone. A
// protocol that it does not speak at all says nothing: it may only just have started.
func (s *presence) otherVersion(p peer.ID, theirs []protocol.ID) error {
	ours := map[string]protocol.ID{} // by what comes before the version
	shared := map[string]bool{}
	for _, own := range s.host.Mux().Protocols() {
		if at := strings.LastIndexByte(string(own), '/') + 1; meshOf(own) == s.mesh {
			ours[string(own[:at])] = own
			shared[string(own[:at])] = shared[string(own[:at])] || slices.Contains(theirs, own)
		}
	}
	for _, other := range theirs {
		at := strings.LastIndexByte(string(other), '/') + 1
		if own, known := ours[string(other[:at])]; known && !shared[string(other[:at])] {
			name := strings.TrimSuffix(string(other[:at]), "/")
			return &OtherVersionError{Peer: p, Protocol: name[strings.LastIndexByte(name, '/')+1:], Theirs: string(other[at:]), Ours: string(own[at:])}
		}
	}
	return nil
}

// meshOf is the mesh's name in a protocol ID /mesh/NAME/WHAT/VERSION, or nothing: /mesh/WHAT/VERSION is the same in
// all meshes.
func meshOf(proto protocol.ID) string {
	rest, found := strings.CutPrefix(string(proto), "/mesh/")
	name, own, _ := strings.Cut(rest, "/")
	if !found || !strings.Contains(own, "/") || !meshName.MatchString(name) {
		return ""
	}
	return name
}

func (s *presence) isGuest(p peer.ID) bool {
	if len(s.guests) == 0 {
		return false
	}
	known, err := s.host.Peerstore().SupportsProtocols(p, s.guests...)
	return err == nil && len(known) > 0
}

// pardon takes back the dismissal of p, if there is one. The caller holds mu.
func (s *presence) pardon(p peer.ID) {
	if t := s.leaving[p]; t != nil {
		t.Stop()
		delete(s.leaving, p)
	}
}

// arrived notes that p, if it is still connected and not dismissed, is a peer of this mesh.
func (s *presence) arrived(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.up[p]; known || s.leaving[p] != nil || s.closed || s.host.Network().Connectedness(p) != network.Connected {
		return
	}
	s.enter(p)
}

// enter gives p a new arrival. The caller holds mu.
func (s *presence) enter(p peer.ID) {
	s.serial++
	s.host.ConnManager().TagPeer(p, peerTag, peerTagValue)
	s.up[p] = arrival{serial: s.serial, at: time.Now()}
	s.signal()
}

// left notes that p has no connection any more.
func (s *presence) left(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pardon(p)
	if _, known := s.up[p]; !known {
		return
	}
	s.leave(p)
	// The event may be older than a new connection, whose identification has been seen already.
	if s.host.Network().Connectedness(p) == network.Connected {
		s.enter(p)
	}
}

// gone notes that p, connected or not, is no peer of this mesh.
func (s *presence) gone(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(p)
}

// leave ends p's arrival. The caller holds mu.
func (s *presence) leave(p peer.ID) {
	delete(s.up, p)
	s.host.ConnManager().UntagPeer(p, peerTag)
	s.signal()
}

// dismiss says why p can't stay, and closes its connections after strangerGrace.
func (s *presence) dismiss(p peer.ID, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving[p] != nil || s.closed {
		return
	}
	s.log.Warn("disconnecting from a peer that is not of this mesh and version", "peer", p, "error", why)
	s.leaving[p] = time.AfterFunc(strangerGrace, func() {
		s.mu.Lock()
		delete(s.leaving, p)
		_, known := s.up[p]
		s.mu.Unlock()
		if !known {
			_ = s.host.Network().ClosePeer(p)
		}
	})
}

// signal wakes tell. The caller holds mu.
func (s *presence) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// tell calls onPeer for every difference between what it was told and what is, until ctx ends.
func (s *presence) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		lost, found := s.differences()
		for _, p := range lost {
			s.onPeer(p, false)
		}
		for _, p := range found {
			s.onPeer(p, true)
		}
	}
}

func (s *presence) differences() (lost, found []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, serial := range s.told {
		if s.up[p].serial != serial {
			lost = append(lost, p)
			delete(s.told, p)
		}
	}
	for p, a := range s.up {
		if s.told[p] != a.serial {
			found = append(found, p)
			s.told[p] = a.serial
		}
	}
	return lost, found
}

// peers are the connected peers of this mesh, in no order.
func (s *presence) peers() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]peer.ID, 0, len(s.up))
	for p := range s.up {
		out = append(out, p)
	}
	return out
}

// greeted notes that the new peer p has been asked for others.
func (s *presence) greeted(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, up := s.up[p]; up {
		a.greeted = true
		s.up[p] = a
	}
}

// settled tells whether all peers that arrived less than age ago have been greeted, and are in the list.
func (s *presence) settled(age time.Duration, list []peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, a := range s.up {
		if time.Since(a.at) < age && !(a.greeted && slices.Contains(list, p)) {
			return false
		}
	}
	return true
}

func (s *presence) isUp(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, up := s.up[p]
	return up
}

func (s *presence) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.up)
}

func (s *presence) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, t := range s.leaving {
		t.Stop()
	}
	clear(s.leaving)
}

func agentOf(h host.Host, p peer.ID) string {
	agent, err := h.Peerstore().Get(p, "AgentVersion")
	if name, ok := agent.(string); ok && err == nil {
		return name
	}
	return ""
}
