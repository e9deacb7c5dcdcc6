package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	libp2p "github.com/libp2p/go-libp2p/core/protocol"
)

const (
	// outboxBytes bounds what waits to be sent to one peer: a whole ledger of 10^6 tasks (4 MiB) and a few pages. What
	// comes on top is dropped: every message is idempotent, and repaired by the next exchange.
	outboxBytes = 8 << 20
	// outboxIdle is how long a stream without traffic is kept: some beats.
	outboxIdle = 30 * time.Second
	// openTimeout bounds dialling a peer and opening a stream, writeTimeout one write: who takes nothing for so long
	// is as good as gone.
	openTimeout  = 10 * time.Second
	writeTimeout = 20 * time.Second
	// closeTimeout bounds a write while this peer closes.
	closeTimeout = 300 * time.Millisecond
	// writeBurst is how much is written at once, where so much waits.
	writeBurst = 64 << 10
	// streamsIn bounds the streams that one peer has open to us: the kept one, and the next while the old one ends.
	streamsIn = 2
	// seenSignatures is how many good signatures are remembered: the records of a few large ledgers, 5 MiB.
	seenSignatures = 32 << 10
)

// swarmCounters count what the swarm streams did.
type swarmCounters struct {
	sent, received, dropped, malformed atomic.Uint64
}

// swarm carries messages between this peer and others, on one kept stream a peer and direction.
type swarm struct {
	host  host.Host
	proto libp2p.ID
	log   *slog.Logger
	codec protocol.Codec
	post  func(market.Input) // may wait: the reader of a stream then does
	count swarmCounters

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	out   map[protocol.PeerID]*outbox
	in    map[protocol.PeerID]int
	noted map[protocol.PeerID]bool // peers whose fault was logged
}

// outbox is what waits to be sent to a peer. Guarded by swarm.mu.
type outbox struct {
	urgent, normal [][]byte // frames
	bytes          int
	wake           chan struct{} // one token: something waits
}

func newSwarm(h host.Host, mesh string, post func(market.Input), log *slog.Logger) *swarm {
	s := &swarm{
		host: h, proto: protocol.Swarm(mesh), log: log, post: post,
		codec: protocol.Codec{Verifier: protocol.NewSeen(nil, seenSignatures)},
		out:   make(map[protocol.PeerID]*outbox), in: make(map[protocol.PeerID]int),
		noted: make(map[protocol.PeerID]bool),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	h.SetStreamHandler(s.proto, s.handle)
	return s
}

// close ends all streams, and returns when their goroutines have ended. Call flush before to let messages out.
func (s *swarm) close() {
	s.host.RemoveStreamHandler(s.proto)
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.wg.Wait()
}

// flush returns when every queue is empty, or the context ends.
func (s *swarm) flush(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.queued() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// queued is the number of bytes that wait to be sent.
func (s *swarm) queued() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.out {
		n += o.bytes
	}
	return n
}

// send puts a message into its peer's queue. It never waits.
func (s *swarm) send(e market.Envelope) {
	frame, err := protocol.EncodeMessage(e.Message)
	if err != nil {
		s.count.dropped.Add(1)
		s.log.Error("a message could not be encoded", "peer", e.To, "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	o := s.out[e.To]
	if o == nil {
		o = &outbox{wake: make(chan struct{}, 1)}
		s.out[e.To] = o
		s.wg.Go(func() { s.write(e.To, o) })
	}
	if o.bytes+len(frame) > outboxBytes {
		s.count.dropped.Add(1)
		return
	}
	o.bytes += len(frame)
	if urgent(e.Message) {
		o.urgent = append(o.urgent, frame)
	} else {
		o.normal = append(o.normal, frame)
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// urgent tells whether a message goes before others: what stops a job, opens a stage, or keeps a range.
func urgent(m protocol.Message) bool {
	switch m := m.(type) {
	case *protocol.News:
		for i := range m.Records {
			switch m.Records[i].Body.Kind() {
			case protocol.KindControl, protocol.KindSeal:
				return true
			}
		}
		return false
	case *protocol.Beat, *protocol.Bid, *protocol.Grant, *protocol.Refusal, *protocol.Suspect, *protocol.Opinion:
		return true
	}
	return false
}

// take removes up to about writeBurst bytes of frames, the urgent ones first. After outboxIdle without any it removes
// the outbox and returns none.
func (s *swarm) take(to protocol.PeerID, o *outbox) [][]byte {
	idle := time.NewTimer(outboxIdle)
	defer idle.Stop()
	for last := false; ; {
		s.mu.Lock()
		frames := o.take()
		if len(frames) > 0 || last {
			if len(frames) == 0 {
				delete(s.out, to)
			}
			s.mu.Unlock()
			return frames
		}
		s.mu.Unlock()
		select {
		case <-o.wake:
		case <-idle.C:
			last = true
		case <-s.ctx.Done():
			last = true
		}
	}
}

func (o *outbox) take() (frames [][]byte) {
	size := 0
	for _, queue := range []*[][]byte{&o.urgent, &o.normal} {
		n := 0
		for n < len(*queue) && size < writeBurst {
			size += len((*queue)[n])
			n++
		}
		frames = append(frames, (*queue)[:n]...)
		if *queue = (*queue)[n:]; len(*queue) == 0 {
			*queue = nil
		}
	}
	o.bytes -= size
	return frames
}

// write sends what is in a peer's queue until there is nothing for a while.
func (s *swarm) write(to protocol.PeerID, o *outbox) {
	var stream network.Stream
	defer func() {
		if stream != nil {
			_ = stream.Close()
		}
	}()
	var buf frameBuffer
	for {
		frames := s.take(to, o)
		if len(frames) == 0 {
			return
		}
		var err error
		if stream == nil {
			if stream, err = s.open(to); err != nil {
				s.lose(to, o, frames, err)
				s.post(market.Probed{Peer: to}) // the machine may take it to be alive
				return
			}
		}
		if err = s.writeTo(stream, &buf, frames); err != nil {
			_ = stream.Reset()
			stream = nil
			s.lose(to, o, frames, err)
			return
		}
		s.count.sent.Add(uint64(len(frames)))
	}
}

// lose gives up what waits for a peer that can't be reached.
func (s *swarm) lose(to protocol.PeerID, o *outbox, frames [][]byte, err error) {
	s.mu.Lock()
	n := len(frames) + len(o.urgent) + len(o.normal)
	delete(s.out, to)
	s.mu.Unlock()
	s.count.dropped.Add(uint64(n))
	if s.ctx.Err() == nil {
		s.log.Debug("messages lost: peer not reached", "peer", to, "messages", n, "error", err)
	}
}

func (s *swarm) open(to protocol.PeerID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(s.ctx, openTimeout)
	defer cancel()
	stream, err := s.host.NewStream(ctx, to, s.proto)
	if err != nil {
		return nil, err
	}
	_ = stream.CloseRead() // nothing comes back: the other side has its own stream
	return stream, nil
}

// frameBuffer joins frames, so that many small ones are one write.
type frameBuffer struct{ b []byte }

func (f *frameBuffer) Write(p []byte) (int, error) {
	f.b = append(f.b, p...)
	return len(p), nil
}

// writeTo sends frames at once. The end of this peer cuts it short.
func (s *swarm) writeTo(stream network.Stream, f *frameBuffer, frames [][]byte) error {
	f.b = f.b[:0]
	for _, frame := range frames {
		if err := protocol.WriteFrame(f, frame); err != nil {
			return err
		}
	}
	if err := stream.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	hurry := context.AfterFunc(s.ctx, func() { _ = stream.SetWriteDeadline(time.Now().Add(closeTimeout)) })
	defer hurry()
	_, err := stream.Write(f.b)
	if cap(f.b) > 2*writeBurst { // a page's buffer is not kept
		f.b = nil
	}
	return err
}

// handle reads the messages of a peer until its stream ends.
func (s *swarm) handle(stream network.Stream) {
	from := stream.Conn().RemotePeer()
	if !s.admit(from) {
		_ = stream.Reset()
		return
	}
	defer s.wg.Done()
	defer s.leave(from)
	// The end of this node ends the read.
	stop := context.AfterFunc(s.ctx, func() { _ = stream.Reset() })
	defer stop()
	_ = stream.CloseWrite()
	if err := s.read(from, stream); err != nil {
		_ = stream.Reset()
		if errors.Is(err, errMalformed) {
			s.malformed(from, err)
		}
		return
	}
	_ = stream.Close()
}

// admit counts a stream in, with a wg.Done owed, unless there are too many.
func (s *swarm) admit(from protocol.PeerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.in[from] >= streamsIn {
		return false
	}
	s.in[from]++
	s.wg.Add(1)
	return true
}

func (s *swarm) leave(from protocol.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in[from]--; s.in[from] == 0 {
		delete(s.in, from)
	}
}

// errMalformed: the peer sent what no honest peer sends.
var errMalformed = errors.New("malformed message")

func (s *swarm) read(from protocol.PeerID, stream network.Stream) error {
	r := protocol.NewReader(stream, protocol.MaxMessage)
	defer r.Close()
	for {
		frame, err := r.ReadFrame()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, protocol.ErrSize), errors.Is(err, protocol.ErrEncoding):
			return errors.Join(errMalformed, err)
		case err != nil:
			return err // cut off: its peer or the way to it is gone
		}
		m, err := s.codec.DecodeMessage(frame)
		if errors.Is(err, protocol.ErrUnknownMessage) {
			continue // of a later version
		}
		if err != nil {
			return errors.Join(errMalformed, err)
		}
		s.count.received.Add(1)
		s.post(market.Received{From: from, Message: m})
		if s.ctx.Err() != nil {
			return nil
		}
	}
}

// maxNoted bounds the peers whose faults are remembered as logged; then the list starts again.
const maxNoted = 1024

// malformed counts a fault, and logs the first of each peer.
func (s *swarm) malformed(from protocol.PeerID, err error) {
	s.count.malformed.Add(1)
	s.mu.Lock()
	known := s.noted[from]
	if len(s.noted) >= maxNoted {
		clear(s.noted)
	}
	s.noted[from] = true
	s.mu.Unlock()
	if !known {
		s.log.Warn("a peer sent a malformed message; its stream was reset, and further ones are only counted", "peer", from, "error", err)
	}
}
