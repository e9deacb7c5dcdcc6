package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	libp2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// asker asks peers what they know of a job, as peers ask each other: what one keeper has in
// its ledger is not for users to see.
type asker struct {
	host.Host
	mesh string
}

func newAsker(t *testing.T, mesh string) asker {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return asker{h, mesh}
}

// ask puts a question to a peer that answers.
func (a asker) ask(t *testing.T, p peer, question map[string]any, answer any) {
	t.Helper()
	addr, err := multiaddr.NewMultiaddr(p.address(t))
	if err != nil {
		t.Fatal(err)
	}
	info, err := libp2ppeer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the peer answers a question", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if a.Connect(ctx, *info) != nil {
			return false
		}
		s, err := a.NewStream(ctx, info.ID, protocol.Query(a.mesh))
		if err != nil {
			return false
		}
		defer s.Reset()
		if protocol.WriteFrame(s, text) != nil || s.CloseWrite() != nil {
			return false
		}
		r := protocol.NewReader(s, protocol.MaxMessage)
		defer r.Close()
		frame, err := r.ReadFrame()
		return err == nil && json.Unmarshal(frame, answer) == nil
	})
}

// keepers are the peers that keep a job, as one of them says.
func (a asker) keepers(t *testing.T, p peer, job string) []string {
	t.Helper()
	var answer struct{ Report struct{ Keepers []string } }
	a.ask(t, p, map[string]any{"job": job, "ask": "status"}, &answer)
	return answer.Report.Keepers
}

// records are the Done and Seal records that a peer has of a job, in an order that does not
// depend on how they came.
func (a asker) records(t *testing.T, p peer, job string) (list []string) {
	t.Helper()
	for next := int64(0); ; {
		var answer struct {
			Records [][]byte
			Next    int64
		}
		a.ask(t, p, map[string]any{"job": job, "ask": "records", "offset": next}, &answer)
		for _, r := range answer.Records {
			list = append(list, string(r))
		}
		if answer.Next <= next {
			break
		}
		next = answer.Next
	}
	slices.Sort(list)
	return list
}
