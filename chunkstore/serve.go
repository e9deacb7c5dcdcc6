package chunkstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
)

// serveBuffer is what one served stream holds of answers: 128 KiB, two of the messages that the multiplexer makes of it.
const serveBuffer = 128 << 10

var serveBuffers = sync.Pool{New: func() any { return new([serveBuffer]byte) }}

// serve answers the requests of one stream until it ends.
func (x *Exchange) serve(stream network.Stream) {
	p := stream.Conn().RemotePeer()
	refused := x.admit(stream, p)
	if refused != statusOK {
		x.refuse(stream, p, refused)
		return
	}
	defer x.leave(stream, p)
	buf := serveBuffers.Get().(*[serveBuffer]byte)
	defer serveBuffers.Put(buf)
	a := answerer{x: x, peer: p, stream: stream, packs: x.packsFor(stream), in: bufio.NewReaderSize(stream, 4<<10), out: buf[:0]}
	if err := a.run(); err != nil {
		x.log.Debug("chunk stream ended", "peer", p, "error", err)
		stream.Reset()
		return
	}
	stream.Close()
}

// packsFor tells whether chunks are worth compressing for who asks on a stream.
func (x *Exchange) packsFor(stream network.Stream) bool {
	return stream.Protocol() == ProtocolID && (x.cfg.PackLocal || !manet.IsIPLoopback(stream.Conn().RemoteMultiaddr()))
}

// admit takes a stream in, unless a limit or the owner says no. An admitted one must leave.
func (x *Exchange) admit(stream network.Stream, p peer.ID) status {
	if !x.cfg.Allow(p) {
		return statusRefused
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || len(x.served) >= x.cfg.Streams || x.serving[p] >= x.cfg.StreamsPerPeer {
		return statusBusy
	}
	x.tasks.Add(1)
	x.served[stream] = struct{}{}
	x.serving[p]++
	return statusOK
}

func (x *Exchange) leave(stream network.Stream, p peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.served, stream)
	if x.serving[p]--; x.serving[p] == 0 {
		delete(x.serving, p)
	}
	x.tasks.Done()
}

// refuse tells the asker why, without reading anything from it.
func (x *Exchange) refuse(stream network.Stream, p peer.ID, s status) {
	x.stats.refused(p)
	stream.SetDeadline(time.Now().Add(time.Second))
	if _, err := stream.Write([]byte{byte(s)}); err != nil {
		stream.Reset()
		return
	}
	stream.CloseRead()
	stream.Close()
}

// answerer serves one stream.
type answerer struct {
	x      *Exchange
	peer   peer.ID
	stream network.Stream
	packs  bool // the asker understands compressed chunks
	in     *bufio.Reader
	out    []byte // answers not sent yet; its capacity is serveBuffer
}

func (a *answerer) run() error {
	for {
		if a.in.Buffered() == 0 { // the asker may be waiting
			if err := a.flush(); err != nil {
				return err
			}
			if err := a.stream.SetReadDeadline(time.Now().Add(a.x.cfg.ServeIdle)); err != nil {
				return err
			}
		}
		c, err := readRequest(a.in)
		if err == io.EOF {
			return a.flush()
		}
		if err != nil {
			return err
		}
		if !a.x.cfg.Allow(a.peer) {
			return errors.Join(a.status(statusRefused), a.flush())
		}
		if err := a.answer(c); err != nil {
			return errors.Join(err, a.flush())
		}
	}
}

// answer writes one answer. An error ends the stream.
func (a *answerer) answer(c cid.Cid) error {
	k, inline, err := keyOf(c)
	if err != nil {
		return a.status(statusNotFound)
	}
	if inline != nil {
		if err := a.head(statusOK, len(inline)); err != nil {
			return err
		}
		return a.write(inline)
	}
	if _, _, ok := a.x.store.index.use(k); !ok {
		return a.status(statusNotFound)
	}
	if err := a.x.store.verify(k); err != nil {
		return a.trouble(c, err)
	}
	f, size, _, err := a.x.store.openFile(k)
	if err != nil {
		return a.trouble(c, err)
	}
	defer f.Close()
	if err := a.send(f, size); err != nil {
		return err
	}
	a.x.stats.sent(a.peer, size)
	return nil
}

// send writes a chunk, compressed if its first block is worth it.
func (a *answerer) send(f io.Reader, size int) error {
	if !a.packs || size < packLeast {
		if err := a.head(statusOK, size); err != nil {
			return err
		}
		return a.copy(f, size)
	}
	plain, buf := packs.Get().(*packed), packs.Get().(*packed)
	defer packs.Put(plain)
	defer packs.Put(buf)
	block := plain[:min(packBlock, size)]
	if _, err := io.ReadFull(f, block); err != nil {
		return err
	}
	left := size - len(block)
	small := pack(buf, block)
	if small == nil {
		if err := errors.Join(a.head(statusOK, size), a.write(block)); err != nil {
			return err
		}
		return a.copy(f, left)
	}
	if err := a.head(statusPacked, size); err != nil {
		return err
	}
	for {
		if err := a.block(block, small); err != nil || left == 0 {
			return err
		}
		block = plain[:min(packBlock, left)]
		if _, err := io.ReadFull(f, block); err != nil {
			return err
		}
		left -= len(block)
		small = pack(buf, block)
	}
}

// block writes a block: packed, or as it is where that is nil.
func (a *answerer) block(plain, packed []byte) error {
	if cap(a.out)-len(a.out) < answerHead {
		if err := a.flush(); err != nil {
			return err
		}
	}
	a.out = appendBlock(a.out, len(packed))
	if packed != nil {
		return a.write(packed)
	}
	return a.write(plain)
}

// trouble answers for a chunk that cannot be read: one that turned out corrupted is just not here.
func (a *answerer) trouble(c cid.Cid, err error) error {
	if errors.Is(err, ErrNotFound) {
		return a.status(statusNotFound)
	}
	a.x.log.Warn("chunk cannot be read", "chunk", c, "error", err)
	if err := a.status(statusFailed); err != nil {
		return err
	}
	return fmt.Errorf("chunk %s: %w", c, err)
}

func (a *answerer) status(s status) error { return a.head(s, 0) }

// answerHead is the most bytes that appendAnswer makes: the status and a length of at most 2^20.
const answerHead = 4

func (a *answerer) head(s status, size int) error {
	if cap(a.out)-len(a.out) < answerHead {
		if err := a.flush(); err != nil {
			return err
		}
	}
	a.out = appendAnswer(a.out, s, size)
	return nil
}

func (a *answerer) write(p []byte) error {
	if cap(a.out)-len(a.out) < len(p) {
		if err := a.flush(); err != nil {
			return err
		}
	}
	a.out = append(a.out, p...)
	return nil
}

// copy sends size bytes of f through the buffer.
func (a *answerer) copy(f io.Reader, size int) error {
	for size > 0 {
		if len(a.out) == cap(a.out) {
			if err := a.flush(); err != nil {
				return err
			}
		}
		room := a.out[len(a.out):cap(a.out)]
		n, err := io.ReadFull(f, room[:min(len(room), size)])
		if err != nil {
			return err
		}
		a.out = a.out[:len(a.out)+n]
		size -= n
	}
	return nil
}

func (a *answerer) flush() error {
	if len(a.out) == 0 {
		return nil
	}
	if err := a.stream.SetWriteDeadline(time.Now().Add(a.x.cfg.ServeIdle)); err != nil {
		return err
	}
	_, err := a.stream.Write(a.out)
	a.out = a.out[:0]
	return err
}
