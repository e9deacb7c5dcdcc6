package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	stream "github.com/libp2p/go-libp2p/core/network"
	libp2ppeer "github.com/libp2p/go-libp2p/core/peer"
	wire "github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

const (
	// memoryLimit is what a peer's meshd may have in memory, whatever others send it.
	memoryLimit = 300 << 20
	// answerTime is how long a hostile peer waits until it is refused or answered.
	answerTime = 50 * time.Millisecond
	// holdTime is how long a hostile peer opens streams.
	holdTime = 3 * time.Second
	// logLimit is what hostile peers may make a peer write to its log.
	logLimit = 256 << 10
)

// hostile is a peer that speaks the mesh's protocols badly.
type hostile struct {
	host.Host
	victim libp2ppeer.AddrInfo
	mesh   string
	random *rand.Rand
	opened map[wire.ID]int // streams
}

// attack connects a hostile peer that looks like one of the mesh.
func attack(t *testing.T, victim peer) *hostile {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	addr, err := multiaddr.NewMultiaddr(victim.address(t))
	if err != nil {
		t.Fatal(err)
	}
	info, err := libp2ppeer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	a := &hostile{h, *info, victim.self(t).Mesh, rand.New(rand.NewPCG(1, 2)), make(map[wire.ID]int)}
	for _, id := range []wire.ID{protocol.Swarm(a.mesh), protocol.Query(a.mesh), wire.ID("/mesh/" + a.mesh + "/peers/1.0.0")} {
		h.SetStreamHandler(id, func(s stream.Stream) { s.Reset() })
	}
	a.connect(t)
	return a
}

func (a *hostile) connect(t *testing.T) {
	t.Helper()
	eventually(t, "the hostile peer is connected", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return a.Connect(ctx, a.victim) == nil
	})
}

// send writes bytes to a stream of a protocol; the victim may end it at any byte.
func (a *hostile) send(t *testing.T, id wire.ID, data []byte) {
	t.Helper()
	a.connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := a.NewStream(ctx, a.victim.ID, id)
	if err != nil {
		return // it is dropped, and comes back
	}
	defer s.Reset()
	a.opened[id]++
	s.SetDeadline(time.Now().Add(answerTime))
	if _, err := s.Write(data); err != nil || s.CloseWrite() != nil {
		return
	}
	s.Read(make([]byte, 1<<10)) // until it is refused, or answered
}

func (a *hostile) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.random.Uint32())
	}
	return b
}

func frame(b []byte) []byte {
	var out bytes.Buffer
	protocol.WriteFrame(&out, b)
	return out.Bytes()
}

// payloads are what every protocol gets: noise, lengths that promise too much, nothing
// many times, and messages cut off.
func (a *hostile) payloads() [][]byte {
	return [][]byte{
		{}, {0}, {0xff}, bytes.Repeat([]byte{0}, 10_000), bytes.Repeat([]byte{0xff}, 10_000),
		a.noise(100), a.noise(64 << 10), a.noise(2 << 20),
		append(binary.AppendUvarint(nil, 1<<62), a.noise(1000)...),
		append(binary.AppendUvarint(nil, protocol.MaxMessage+1), a.noise(1000)...),
		append(binary.AppendUvarint(nil, protocol.MaxMessage), a.noise(1000)...),
		frame(a.noise(1000)), frame(a.noise(1000))[:500],
		frame([]byte(strings.Repeat("[", 100_000))),
		frame([]byte(`{"job":"x","ask":"nonsense","stage":4294967295,"offset":-1}`)),
	}
}

// rss is the memory that a process has.
func rss(t *testing.T, pid int) int {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/"+strconv.Itoa(pid)+"/status")) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// A peer that sends nonsense on every protocol changes nothing.
func TestHostilePeer(t *testing.T) {
	victim := start(t, t.TempDir(), "--slots", "1")
	job := victim.submit(t, "--array", "1", "--map", contract+" loop")
	a := attack(t, victim.peer)
	var offered []wire.ID
	eventually(t, "the victim says what it speaks", func() bool {
		offered, _ = a.Peerstore().GetProtocols(a.victim.ID)
		return slices.Contains(offered, protocol.Swarm(a.mesh))
	})
	t.Log(offered)
	for _, id := range offered {
		for _, data := range a.payloads() {
			a.send(t, id, data)
		}
		if a.opened[id] == 0 {
			t.Errorf("no stream of %s could be opened", id)
		}
	}
	a.messages(t, job)
	a.questions(t, job)
	a.gossip(t)
	a.holdStreams(t, offered)

	self := victim.self(t)
	if self.PID != victim.cmd.Process.Pid {
		t.Fatalf("another process answers: %+v", self)
	}
	if n := rss(t, self.PID); n > memoryLimit {
		t.Errorf("meshd has %d MiB of memory", n>>20)
	}
	if stat, err := os.Stat(victim.log); err != nil || stat.Size() > logLimit {
		t.Errorf("the log: %v, %v", stat, err)
	}
	if victim.said("panic") {
		t.Error("meshd panicked")
	}
	if s := victim.status(t, job); s.State != api.StateRunning || s.Owner != self.Owner {
		t.Errorf("the job that runs: %+v", s)
	}
	victim.ok(t, "cancel", job)
	if got := victim.ok(t, "submit", "--array", "3", "--map", program("index"), "-o", "-"); got != "0\n1\n2\n" {
		t.Errorf("a job afterwards: %q", got)
	}
}

// messages are well formed: of any kind, about jobs that nobody knows; signed by the
// wrong key; and with any byte changed.
func (a *hostile) messages(t *testing.T, job string) {
	t.Helper()
	id := protocol.Swarm(a.mesh)
	draw := rapid.Custom(protocoltest.Message)
	var good, bad []byte
	for i := range 60 {
		text, err := protocol.EncodeMessage(draw.Example(i))
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, frame(text)...)
		if len(text) > 0 {
			text[a.random.IntN(len(text))] ^= 1 << a.random.IntN(8)
		}
		bad = frame(text)
		a.send(t, id, bad)
	}
	a.send(t, id, good)
	if text, err := protocol.EncodeMessage(&protocol.News{Job: target(t, job), Records: []protocol.Record{a.order(t, job)}}); err != nil {
		t.Fatal(err)
	} else {
		a.send(t, id, frame(text))
	}
}

func target(t *testing.T, job string) protocol.JobID {
	t.Helper()
	id, err := protocol.ParseJobID(job)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// order is a cancel of a job by one who does not own it.
func (a *hostile) order(t *testing.T, job string) protocol.Record {
	t.Helper()
	signer, err := protocol.NewSigner(a.Peerstore().PrivKey(a.ID()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := protocol.SignRecord(signer, &protocol.Control{Job: target(t, job), Sequence: uint64(time.Now().UnixMilli()), Verb: protocol.VerbCancel})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// questions are of the query protocol: an order that is another's to give, and fields that
// make no sense.
func (a *hostile) questions(t *testing.T, job string) {
	t.Helper()
	for _, q := range []map[string]any{
		{"job": job, "ask": "control", "record": a.order(t, job).Raw},
		{"job": job, "ask": "control", "record": a.noise(500)},
		{"job": job, "ask": "records", "offset": int64(-1 << 62)},
		{"job": job, "ask": "records", "offset": int64(1 << 62)},
		{"job": job, "ask": "pages", "stage": 1 << 31, "task": uint64(1 << 63)},
		{"job": job, "ask": "tail", "task": uint64(1 << 63), "offset": -5},
		{"job": job, "ask": "status", "unknown": "field"},
	} {
		text, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		a.send(t, protocol.Query(a.mesh), frame(text))
	}
}

// gossip publishes what is no announcement: noise, too much, and one with a bit changed.
func (a *hostile) gossip(t *testing.T) {
	t.Helper()
	a.connect(t)
	ps, err := pubsub.NewGossipSub(t.Context(), a,
		pubsub.WithGossipSubProtocols([]wire.ID{wire.ID("/mesh/" + a.mesh + "/gossip/1.2.0")}, pubsub.GossipSubDefaultFeatures),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join("/mesh/" + a.mesh + "/announcements/1")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the victim listens to gossip", func() bool {
		a.connect(t)
		return len(topic.ListPeers()) > 0
	})
	for i := range 200 {
		data := a.noise(1 + a.random.IntN(1500))
		if i%2 == 0 {
			data = rapid.Custom(func(t *rapid.T) []byte { return protocoltest.Announcement(t).Raw }).Example(i)
			if i%4 == 0 && len(data) > 0 {
				data[a.random.IntN(len(data))] ^= 1
			}
		}
		topic.Publish(t.Context(), data) // the victim may be gone by now, having had enough
	}
}

// holdStreams opens streams, half a message on each, until it gets no more or has had holdTime.
func (a *hostile) holdStreams(t *testing.T, protocols []wire.ID) {
	t.Helper()
	a.connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), holdTime)
	defer cancel()
	for i := 0; ctx.Err() == nil; i++ {
		s, err := a.NewStream(ctx, a.victim.ID, protocols[i%len(protocols)])
		if err != nil {
			return
		}
		s.SetDeadline(time.Now().Add(answerTime))
		s.Write(frame(a.noise(1000))[:10]) // it stays open until its peer closes it
	}
}
