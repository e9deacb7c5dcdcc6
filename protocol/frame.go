package protocol

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	pool "github.com/libp2p/go-buffer-pool"
)

// Frame sizes.
const (
	// frameBuffer is what a Reader has for itself for as long as its stream lives: most
	// frames (bids, beats, a few records) fit.
	frameBuffer = 4 << 10
	// frameStep is how much memory a declared length is worth before its bytes come.
	frameStep = 64 << 10
)

// WriteFrame writes b after its length as an unsigned varint, in one Write, so that
// frames of several writers never mix where the writes of w do not.
// It refuses more than MaxMessage bytes.
func WriteFrame(w io.Writer, b []byte) error {
	if len(b) > MaxMessage {
		return fault("frame", fmt.Sprintf("%d bytes, at most %d", len(b), MaxMessage), ErrSize)
	}
	buf := pool.Get(binary.MaxVarintLen32 + len(b))
	defer pool.Put(buf)
	n := binary.PutUvarint(buf, uint64(len(b)))
	n += copy(buf[n:], b)
	if _, err := w.Write(buf[:n]); err != nil {
		return fmt.Errorf("protocol: write frame: %w", err)
	}
	return nil
}

// Reader reads frames from a stream. Close gives its buffers back.
type Reader struct {
	r     *bufio.Reader
	limit int
	large []byte // from the pool, while a large frame is in use
	small [frameBuffer]byte
}

// NewReader reads frames of at most limit bytes, and never more than MaxMessage.
func NewReader(r io.Reader, limit int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, frameBuffer), limit: min(limit, MaxMessage)}
}

// ReadFrame gives the next frame, valid until the next call of any method. The error is
// io.EOF where the stream ends between two frames. After any error the stream is of no
// more use.
func (r *Reader) ReadFrame() ([]byte, error) {
	r.release()
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if n <= frameBuffer {
		if err := r.fill(r.small[:n]); err != nil {
			return nil, err
		}
		return r.small[:n], nil
	}
	for have := 0; have < n; {
		r.grow(have, min(n, max(2*have, frameStep)))
		if err := r.fill(r.large[have:]); err != nil {
			return nil, err
		}
		have = len(r.large)
	}
	return r.large, nil
}

// Close gives the buffers back; the stream stays open.
func (r *Reader) Close() { r.release() }

func (r *Reader) release() {
	if r.large != nil {
		pool.Put(r.large)
		r.large = nil
	}
}

// grow makes large n bytes long, the first have of them as they were.
func (r *Reader) grow(have, n int) {
	b := pool.Get(n)
	copy(b, r.large[:have])
	r.release()
	r.large = b
}

func (r *Reader) fill(b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("protocol: read frame: %w", err)
	}
	return nil
}

// length reads a frame's length: an unsigned varint in its shortest form, within the limit.
func (r *Reader) length() (int, error) {
	var n uint64
	for i := range binary.MaxVarintLen32 {
		b, err := r.r.ReadByte()
		switch {
		case err == io.EOF && i == 0:
			return 0, io.EOF
		case err == io.EOF:
			return 0, fmt.Errorf("protocol: read frame: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return 0, fmt.Errorf("protocol: read frame: %w", err)
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b >= 0x80 {
			continue
		}
		if b == 0 && i > 0 {
			return 0, fault("frame", "length not in its shortest form", ErrEncoding)
		}
		if n > uint64(r.limit) {
			return 0, fault("frame", fmt.Sprintf("%d bytes, at most %d", n, r.limit), ErrSize)
		}
		return int(n), nil
	}
	return 0, fault("frame", "length of more than 5 bytes", ErrSize)
}
