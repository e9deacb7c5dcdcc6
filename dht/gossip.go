package dht

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Verdict is what a Judge says of an announcement.
type Verdict int

const (
	Reject Verdict = iota // it breaks the rules: no honest peer forwards it
	Ignore                // nothing wrong, but of no use here: it is not forwarded either
	Accept                // it is forwarded and delivered
)

const (
	// MaxAnnouncement is the largest payload: below the 1,024 bytes from which gossipsub spends messages to avoid
	// copies.
	MaxAnnouncement = 1023
	// SeenFor is how long an announcement's hash is remembered: the same bytes announced again within it go nowhere.
	// Longer than gossip takes to reach everybody (seconds), shorter than the minute between re-announcements.
	SeenFor = 30 * time.Second

	// announcementQueue, gossipQueue hold announcements to be delivered, to be judged, and to be sent to one peer:
	// every job of a busy mesh announced anew at once. Beyond, they are dropped and counted.
	announcementQueue = 256
	gossipQueue       = 256
	// gossipMessage bounds a message between two peers: 60 announcements.
	gossipMessage = 64 << 10
	// judgeConcurrency, judgeTimeout bound the work of judging: it is a signature check, of some 100 us.
	judgeConcurrency = 8
	judgeTimeout     = time.Second
	// pruneBackoff is how long a peer that left the topic's mesh is not taken back; gossipsub's own minute would keep
	// a restarted peer out for that long.
	pruneBackoff = 10 * time.Second
	// readyWait is how long Announce waits for peers that have only just been found or connected: a connection and its
	// subscription take a few round trips. readyStep is how often it looks.
	readyWait = 2 * time.Second
	readyStep = 20 * time.Millisecond
)

// gossip carries announcements over one gossipsub topic.
//
// Payloads carry their own signature, which the Judge checks, so gossipsub adds none, and a message's ID is the hash
// of its payload: the same announcement from several keepers is one message. Whoever announces sends to all connected
// peers at once (flood publishing): announcements are small and rare, and latency is what counts.
type gossip struct {
	topic    *pubsub.Topic
	sub      *pubsub.Subscription
	judge    func([]byte) Verdict
	deliver  func(peer.ID, []byte)
	self     peer.ID
	counters gossipCounters
}

// gossipCounters count what gossipsub drops without an error. It is a pubsub.RawTracer.
type gossipCounters struct {
	delivered, rejected, duplicate, dropped, undelivered atomic.Int64
}

// newGossip joins the topic; everything ends with ctx.
func newGossip(ctx context.Context, h host.Host, cfg Config, log *slog.Logger) (*gossip, error) {
	g := &gossip{judge: cfg.Judge, deliver: cfg.OnAnnouncement, self: h.ID()}
	name := "/mesh/" + cfg.Mesh + "/announcements/1"
	proto := protocol.ID("/mesh/" + cfg.Mesh + "/gossip/1.2.0")
	params := pubsub.DefaultGossipSubParams()
	params.PruneBackoff = pruneBackoff
	params.UnsubscribeBackoff = pruneBackoff
	ps, err := pubsub.NewGossipSub(ctx, h,
		pubsub.WithGossipSubProtocols([]protocol.ID{proto}, asVersion12),
		pubsub.WithGossipSubParams(params),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithMessageIdFn(payloadHash),
		pubsub.WithSeenMessagesTTL(SeenFor),
		pubsub.WithFloodPublish(true),
		pubsub.WithMaxMessageSize(gossipMessage),
		pubsub.WithPeerOutboundQueueSize(gossipQueue),
		pubsub.WithValidateQueueSize(gossipQueue),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(name), 1)),
		pubsub.WithRawTracer(&g.counters),
		pubsub.WithLogger(slog.New(slog.DiscardHandler)),
		pubsub.WithRPCLogger(slog.New(slog.DiscardHandler)),
	)
	if err != nil {
		return nil, fmt.Errorf("dht: gossip: %w", err)
	}
	err = ps.RegisterTopicValidator(name, g.validate,
		pubsub.WithValidatorConcurrency(judgeConcurrency), pubsub.WithValidatorTimeout(judgeTimeout))
	if err != nil {
		return nil, fmt.Errorf("dht: gossip validator: %w", err)
	}
	if g.topic, err = ps.Join(name); err != nil {
		return nil, fmt.Errorf("dht: gossip topic %s: %w", name, err)
	}
	if g.sub, err = g.topic.Subscribe(pubsub.WithBufferSize(announcementQueue)); err != nil {
		return nil, fmt.Errorf("dht: gossip topic %s: %w", name, err)
	}
	return g, nil
}

// asVersion12 says that our one protocol has what gossipsub 1.2 has. The ID differs from gossipsub's own so that a
// mesh's gossip never touches another's.
func asVersion12(feature pubsub.GossipSubFeature, _ protocol.ID) bool {
	return feature == pubsub.GossipSubFeatureMesh || feature == pubsub.GossipSubFeaturePX || feature == pubsub.GossipSubFeatureIdontwant
}

func payloadHash(m *pb.Message) string {
	h := sha256.Sum256(m.GetData())
	return string(h[:])
}

func (g *gossip) validate(_ context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if len(m.Data) == 0 || len(m.Data) > MaxAnnouncement {
		return pubsub.ValidationReject
	}
	switch g.judge(m.Data) {
	case Accept:
		return pubsub.ValidationAccept
	case Ignore:
		return pubsub.ValidationIgnore
	default:
		return pubsub.ValidationReject
	}
}

// receive delivers announcements of others until ctx ends.
func (g *gossip) receive(ctx context.Context) {
	defer g.sub.Cancel()
	for {
		m, err := g.sub.Next(ctx)
		if err != nil {
			return
		}
		if m.ReceivedFrom != g.self && g.deliver != nil {
			g.deliver(m.ReceivedFrom, m.Data)
		}
	}
}

// announce publishes to the connected peers, as soon as settled says that they are all there.
func (g *gossip) announce(ctx context.Context, payload []byte, settled func(listening []peer.ID) bool) error {
	if len(payload) == 0 || len(payload) > MaxAnnouncement {
		return fmt.Errorf("dht: announce: %w: %d bytes, want 1 to %d", ErrTooLarge, len(payload), MaxAnnouncement)
	}
	if g.ready(ctx, settled) == 0 {
		return fmt.Errorf("dht: announce: %w", ErrNoPeers)
	}
	if err := g.topic.Publish(ctx, payload); err != nil {
		return fmt.Errorf("dht: announce: %w", err)
	}
	return nil
}

// ready waits until settled, for readyWait at most, and returns how many peers listen. What is published earlier
// passes some by: gossipsub sends to peers whose subscription it has heard, and these forward only to peers they have
// taken into the topic's mesh, which they do once a second.
func (g *gossip) ready(ctx context.Context, settled func([]peer.ID) bool) int {
	deadline := time.After(readyWait)
	tick := time.NewTicker(readyStep)
	defer tick.Stop()
	for {
		listening := g.topic.ListPeers()
		if settled(listening) {
			return len(listening)
		}
		select {
		case <-ctx.Done():
			return len(listening)
		case <-deadline:
			return len(listening)
		case <-tick.C:
		}
	}
}

// The rest is pubsub.RawTracer.

func (c *gossipCounters) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (c *gossipCounters) OnClosedOutboundStream(peer.ID)           {}
func (c *gossipCounters) Join(string)                              {}
func (c *gossipCounters) Leave(string)                             {}
func (c *gossipCounters) Graft(peer.ID, string)                    {}
func (c *gossipCounters) Prune(peer.ID, string)                    {}
func (c *gossipCounters) ValidateMessage(*pubsub.Message)          {}
func (c *gossipCounters) DeliverMessage(*pubsub.Message)           { c.delivered.Add(1) }
func (c *gossipCounters) RejectMessage(*pubsub.Message, string)    { c.rejected.Add(1) }
func (c *gossipCounters) DuplicateMessage(*pubsub.Message)         { c.duplicate.Add(1) }
func (c *gossipCounters) ThrottlePeer(peer.ID)                     {}
func (c *gossipCounters) RecvRPC(*pubsub.RPC)                      {}
func (c *gossipCounters) SendRPC(*pubsub.RPC, peer.ID)             {}
func (c *gossipCounters) DropRPC(*pubsub.RPC, peer.ID)             { c.dropped.Add(1) }
func (c *gossipCounters) UndeliverableMessage(*pubsub.Message)     { c.undelivered.Add(1) }
