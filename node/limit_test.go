package node

import (
	"errors"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// A fetch with a limit ends where it is passed: what another peer names is no larger than
// it may be, whatever the quota would take.
func TestAFetchStopsAtItsLimit(t *testing.T) {
	nodes := startMesh(t, 2, func(_ int, cfg *Config) { cfg.Slots = 0 })
	root, err := cid.Decode(nodes[0].program("noop").Root)
	if err != nil {
		t.Fatal(err)
	}
	from := source{from: []protocol.PeerID{nodes[0].Peer()}, limit: 10}
	if err := nodes[1].content.fetch(t.Context(), []cid.Cid{root}, from); !errors.Is(err, errTooMuch) {
		t.Errorf("a program within 10 bytes: %v", err)
	}
	from.limit = 1 << 20
	if err := nodes[1].content.fetch(t.Context(), []cid.Cid{root}, from); err != nil {
		t.Errorf("within its limit: %v", err)
	}
}
