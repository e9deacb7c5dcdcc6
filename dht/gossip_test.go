package dht

import (
	"context"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/protocol"
)

func TestMeshOfAProtocol(t *testing.T) {
	for proto, want := range map[protocol.ID]string{
		"/mesh/lab/swarm/1.0.0": "lab", "/mesh/chunks/peers/1.0.0": "chunks", "/mesh/lab/kad/1.0.0": "lab",
		"/mesh/chunks/1.0.0": "", // of all meshes
		"/mesh/lab":          "", "/ipfs/kad/1.0.0": "", "/mesh//x/1": "", "/mesh/No Name/x/1": "",
	} {
		if got := meshOf(proto); got != want {
			t.Errorf("%s: %q, want %q", proto, got, want)
		}
	}
}

// FuzzAnnouncement: whatever arrives, the Judge sees only payloads within the limit, and its verdict stands.
func FuzzAnnouncement(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("a job"))
	f.Add(make([]byte, MaxAnnouncement+1))
	f.Fuzz(func(t *testing.T, payload []byte) {
		for verdict, want := range map[Verdict]pubsub.ValidationResult{
			Accept: pubsub.ValidationAccept, Ignore: pubsub.ValidationIgnore, Reject: pubsub.ValidationReject, 99: pubsub.ValidationReject,
		} {
			judged := false
			g := &gossip{judge: func([]byte) Verdict { judged = true; return verdict }}
			got := g.validate(context.Background(), "", &pubsub.Message{Message: &pb.Message{Data: payload}})
			sizeIsRight := len(payload) > 0 && len(payload) <= MaxAnnouncement
			if judged != sizeIsRight {
				t.Fatalf("%d bytes, judged: %v", len(payload), judged)
			}
			if !sizeIsRight {
				want = pubsub.ValidationReject
			}
			if got != want {
				t.Fatalf("%d bytes, verdict %d: %v, want %v", len(payload), verdict, got, want)
			}
		}
	})
}

func TestGossipCanBeSwitchedOff(t *testing.T) {
	deaf := onLoopbackOnly(t, new(heard))
	deaf.Gossip, deaf.Judge = false, nil
	n := start(t, deaf)
	h := new(heard)
	other := start(t, onLoopbackOnly(t, h, n))
	eventually(t, "connected", func() bool { return n.Stats().Peers == 1 && other.Stats().Peers == 1 })
	if err := n.Announce(t.Context(), []byte("x")); err == nil {
		t.Error("announced without gossip")
	}
	// A peer that does not listen holds nobody up for ever.
	third := new(heard)
	start(t, onLoopbackOnly(t, third, n))
	eventually(t, "all are connected", func() bool { return other.Stats().Peers == 2 })
	if err := other.Announce(t.Context(), []byte("past the deaf")); err != nil {
		t.Error(err)
	}
	eventually(t, "the third hears", func() bool { return third.has("past the deaf") })
}

// FuzzMeshOf: the name of a mesh in a peer's protocol ID is one that could be configured, or none.
func FuzzMeshOf(f *testing.F) {
	f.Add("/mesh/default/peers/1.0.0")
	f.Add("/mesh/\x1b[31m/peers")
	f.Add("/ipfs/id/1.0.0")
	f.Fuzz(func(t *testing.T, proto string) {
		if name := meshOf(protocol.ID(proto)); name != "" && !meshName.MatchString(name) {
			t.Fatalf("%q in %q", name, proto)
		}
	})
}
