package node

import (
	"context"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2pprotocol "github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

// testHosts are two connected hosts.
func testHosts(t *testing.T) (a, b host.Host) {
	t.Helper()
	var hosts []host.Host
	for range 2 {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		hosts = append(hosts, h)
	}
	if err := hosts[0].Connect(t.Context(), peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}); err != nil {
		t.Fatal(err)
	}
	return hosts[0], hosts[1]
}

func testSwarm(t *testing.T, h host.Host) (*swarm, <-chan market.Input) {
	in := make(chan market.Input, 1000)
	s := newSwarm(h, "test", func(i market.Input) { in <- i }, quiet())
	t.Cleanup(s.close)
	return s, in
}

func TestSwarmKeepsOneStream(t *testing.T) {
	ha, hb := testHosts(t)
	a, _ := testSwarm(t, ha)
	_, in := testSwarm(t, hb)
	const n = 300
	for range n {
		a.send(market.Envelope{To: hb.ID(), Message: &protocol.JobsRequest{}})
	}
	for range n {
		got, ok := (<-in).(market.Received)
		if _, is := got.Message.(*protocol.JobsRequest); !ok || !is || got.From != ha.ID() {
			t.Fatalf("got %+v", got)
		}
	}
	streams := 0
	for _, c := range ha.Network().ConnsToPeer(hb.ID()) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == a.proto {
				streams++
			}
		}
	}
	if streams != 1 {
		t.Errorf("%d streams for %d messages", streams, n)
	}
}

// Who does not answer takes no more memory than its outbox; what does not fit is dropped and counted.
func TestSwarmOutboxIsBounded(t *testing.T) {
	ha, hb := testHosts(t)
	a, _ := testSwarm(t, ha)
	hb.SetStreamHandler(a.proto, func(s network.Stream) {}) // reads nothing
	data := make([]byte, protocol.MaxPage)
	c, err := cidOfRaw(data)
	if err != nil {
		t.Fatal(err)
	}
	job := protocol.JobIDOf(c)
	page := &protocol.ReceiptRequest{
		StageRef: protocol.StageRef{Job: job, Key: protocol.Hash{1}}, Range: protocol.Range{Hi: 1}, Page: c, Bytes: data,
	}
	if _, err := protocol.EncodeMessage(page); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		a.send(market.Envelope{To: hb.ID(), Message: page})
		if queued := a.queued(); queued > outboxBytes {
			t.Fatalf("%d bytes queued", queued)
		}
	}
	if a.count.dropped.Load() == 0 {
		t.Error("nothing was dropped")
	}
}

func TestSwarmTellsOfAPeerThatIsNotReached(t *testing.T) {
	ha, hb := testHosts(t)
	a, in := testSwarm(t, ha)
	_ = hb.Close()
	a.send(market.Envelope{To: hb.ID(), Message: &protocol.JobsRequest{}})
	if got, ok := (<-in).(market.Probed); !ok || got.Alive || got.Peer != hb.ID() {
		t.Fatalf("got %+v", got)
	}
	if a.count.dropped.Load() != 1 {
		t.Errorf("%d dropped", a.count.dropped.Load())
	}
}

func TestMalformedMessagesResetTheStream(t *testing.T) {
	ha, hb := testHosts(t)
	b, in := testSwarm(t, hb)
	oversize := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, make([]byte, 100)...)
	for i, bad := range [][]byte{[]byte("\x03abc"), oversize, {0x80, 0x00}} {
		s, err := ha.NewStream(t.Context(), hb.ID(), b.proto)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(bad); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the fault is counted", func() bool { return b.count.malformed.Load() == uint64(i)+1 })
		eventually(t, "the stream is reset", func() bool { _, err := s.Write([]byte{0}); return err != nil })
	}
	if len(in) != 0 {
		t.Errorf("%d inputs from malformed messages", len(in))
	}
}

// The query protocol answers only what it is asked in its form.
func TestQueryRefusesWhatIsMalformed(t *testing.T) {
	nodes := startMesh(t, 2, func(_ int, cfg *Config) { cfg.Slots = 0 })
	ask := func(q question) error {
		_, err := nodes[0].query.ask(t.Context(), nodes[1].Peer(), q)
		return err
	}
	for what, q := range map[string]question{
		"no job":         {Ask: askStatus},
		"unknown job":    {Ask: askStatus, Job: "bafyreib4zadvc7dzcyin2oyl6m7ni7wt5u47pfb764u4yv3bcrggycc4ym"},
		"unknown ask":    {Ask: "dance", Job: "bafyreib4zadvc7dzcyin2oyl6m7ni7wt5u47pfb764u4yv3bcrggycc4ym"},
		"no control":     {Ask: askControl, Job: "bafyreib4zadvc7dzcyin2oyl6m7ni7wt5u47pfb764u4yv3bcrggycc4ym", Record: []byte("x")},
		"a long control": {Ask: askControl, Job: strings.Repeat("b", 2*maxQuestion)},
	} {
		if err := ask(q); err == nil {
			t.Errorf("%s: answered", what)
		}
	}
	job := nodes[1].submit(api.SubmitRequest{Map: nodes[1].program("noop"), Array: ptr(uint64(1)), Replicas: ptr(0)})
	if err := ask(question{Ask: askStatus, Job: job}); err != nil {
		t.Errorf("a good question after bad ones: %v", err)
	}
	raw, err := nodes[0].net.Host().NewStream(t.Context(), nodes[1].Peer(), protocol.Query("test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := protocol.WriteFrame(raw, []byte("{")); err != nil {
		t.Fatal(err)
	}
	frame, err := protocol.NewReader(raw, maxAnswer).ReadFrame()
	if err != nil || !strings.Contains(string(frame), "can't be read") {
		t.Errorf("answer %q, %v", frame, err)
	}
	_ = raw.Reset()
}

// A peer of another mesh shares no protocol with this one.
func TestMeshesAreApart(t *testing.T) {
	a := startNode(t, testConfig(t, t.TempDir()))
	other := testConfig(t, t.TempDir())
	other.Mesh = "other"
	b := startNode(t, other)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := b.Connect(ctx, a.Addrs()[0].String()); api.KindOf(err) != api.KindConflict || !strings.Contains(err.Error(), `"test"`) {
		t.Errorf("connect to another mesh: %v", err)
	}
	for _, p := range []libp2pprotocol.ID{protocol.Swarm("test"), protocol.Query("test")} {
		if known, err := a.net.Host().Peerstore().SupportsProtocols(b.Peer(), p); err != nil || len(known) > 0 {
			t.Errorf("a peer of another mesh speaks %s (%v)", p, err)
		}
	}
}

func cidOfRaw(data []byte) (cid.Cid, error) {
	return cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum(data)
}

func FuzzReadQuestion(f *testing.F) {
	f.Add([]byte(`{"job":"bafyreib4zadvc7dzcyin2oyl6m7ni7wt5u47pfb764u4yv3bcrggycc4ym","ask":"tail","stage":1,"task":2,"offset":-3}`))
	f.Add([]byte(`{"job":"","record":"AAAA"}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		ask, id, err := readQuestion(frame)
		if err == nil && (ask == nil || !id.CID().Defined()) {
			t.Fatalf("%q is taken for a question", frame)
		}
	})
}
