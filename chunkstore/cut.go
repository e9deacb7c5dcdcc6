package chunkstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
)

// cutter decides where pieces and chunks end. Bytes are read straight into the buffer that is hashed and written; only what
// follows a cut is copied to the next one.
//
// A piece of lines ends after the last newline within limit bytes, which is known only at the limit, when earlier chunks of
// the piece are being stored already. The chunks from the one with the last newline on are therefore held: not yet part
// of the piece. If the cut falls into the first of them (a line of more than 1 MiB runs across the limit), it is stored
// again up to the cut, and the rest is read back from the store for the next piece.
type cutter struct {
	im    *Import
	kind  SplitKind
	limit int64

	buf  *[MaxChunk]byte // nil until there is a byte for it
	n    int             // bytes in buf
	size int64           // bytes of the piece that left buf as leaves
	held []*leaf         // see above
	mark int             // bytes of held[0] up to its last newline, itself included; when held is not empty

	long bool        // the piece is one line longer than limit; it ends after the next newline
	step int         // while long, how much to read at most: doubles, so that little is read past the newline
	back []io.Reader // bytes to read again before the source's, the last one first; each has a Len

	name  string // of the piece, when named
	named bool
	from  string // source of the last byte
	last  byte   // the last byte
	any   bool   // there was a byte
}

// firstStep is the first read while looking for the end of a long line.
const firstStep = 4 << 10

// file takes one source file.
func (c *cutter) file(ctx context.Context, name string, r *bufio.Reader) error {
	if c.kind == SplitLines && c.any && c.last != '\n' {
		if more, err := hasMore(r); !more {
			return err
		}
		c.unread([]byte{'\n'})
	}
	for {
		if err := errors.Join(ctx.Err(), c.im.err()); err != nil {
			return err
		}
		more, err := c.fill(name, r)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if c.kind == SplitFile && !c.named {
		c.name, c.named = name, true
	}
	if c.kind == SplitFile || c.kind == SplitBytes && c.size+int64(c.n) > 0 {
		return c.end(c.n)
	}
	return nil
}

// finish takes the end of the input. First is the name of the first file.
func (c *cutter) finish(first string) error {
	if c.kind == SplitNone && !c.named {
		c.name = first
	}
	if c.kind == SplitNone || c.size+int64(c.n) > 0 {
		return c.end(c.n)
	}
	return nil
}

// fill makes one read and acts on it; more is false at the end of the source.
func (c *cutter) fill(name string, r *bufio.Reader) (more bool, err error) {
	if !c.long && c.size+int64(c.n) == c.limit {
		// Cut only when more follows: what ends here is whole, with or without a newline.
		if more, err := c.hasMore(r); !more {
			return false, err
		}
		return true, c.full()
	}
	if c.buf == nil {
		c.buf = c.im.buffer()
	}
	room := MaxChunk - c.n
	if c.long {
		room = min(room, c.step)
		c.step = min(2*c.step, MaxChunk)
	} else {
		room = int(min(int64(room), c.limit-c.size-int64(c.n)))
	}
	k, err := c.read(r, c.buf[c.n:c.n+room])
	if k > 0 {
		if err := c.took(k, name); err != nil {
			return false, err
		}
	}
	if err == io.EOF {
		return false, nil
	}
	return true, err
}

// read reads from what was put back, then from the source.
func (c *cutter) read(r io.Reader, p []byte) (int, error) {
	for len(c.back) > 0 {
		n, err := c.back[len(c.back)-1].Read(p)
		if err == io.EOF {
			c.back = c.back[:len(c.back)-1]
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return r.Read(p)
}

// unread puts bytes back; data must not change afterwards.
func (c *cutter) unread(data []byte) {
	c.trim()
	if len(data) > 0 {
		c.back = append(c.back, bytes.NewReader(data))
	}
}

// trim drops what has been read to its end, so that back stays short.
func (c *cutter) trim() {
	for len(c.back) > 0 && c.back[len(c.back)-1].(interface{ Len() int }).Len() == 0 {
		c.back = c.back[:len(c.back)-1]
	}
}

func (c *cutter) hasMore(r *bufio.Reader) (bool, error) {
	if c.trim(); len(c.back) > 0 {
		return true, nil
	}
	return hasMore(r)
}

func hasMore(r *bufio.Reader) (bool, error) {
	_, err := r.Peek(1)
	if err == io.EOF {
		return false, nil
	}
	return err == nil, err
}

// took accounts for k bytes just read to the end of buf.
func (c *cutter) took(k int, name string) error {
	fresh := c.buf[c.n : c.n+k]
	c.n += k
	c.from, c.last, c.any = name, fresh[k-1], true
	if !c.named {
		c.name, c.named = name, true
	}
	if c.long {
		if i := bytes.IndexByte(fresh, '\n'); i >= 0 {
			return c.end(c.n - k + i + 1)
		}
	}
	if c.n == MaxChunk && (c.long || c.size+int64(c.n) < c.limit) {
		return c.flush()
	}
	return nil
}

// flush makes a leaf of the full buffer in the middle of a piece.
func (c *cutter) flush() error {
	newline := -1
	if c.kind == SplitLines && !c.long {
		newline = bytes.LastIndexByte(c.buf[:c.n], '\n')
	}
	l := c.leaf(c.n)
	switch {
	case newline >= 0:
		c.confirm()
		c.held, c.mark = append(c.held, l), newline+1
	case len(c.held) > 0:
		c.held = append(c.held, l)
	default:
		c.im.out <- assembly{leaf: l}
	}
	return nil
}

// leaf begins to store the first n bytes of buf, all there are, and leaves buf empty.
func (c *cutter) leaf(n int) *leaf {
	if c.buf == nil {
		c.buf = c.im.buffer() // of an empty piece
	}
	l := c.im.store(c.buf, n)
	c.size += int64(n)
	c.buf, c.n = nil, 0
	return l
}

// confirm makes the held leaves part of the piece.
func (c *cutter) confirm() {
	for _, l := range c.held {
		c.im.out <- assembly{leaf: l}
	}
	c.held = c.held[:0]
}

// full ends a piece that has reached the limit with more to come.
func (c *cutter) full() error {
	if c.kind != SplitLines {
		return c.end(c.n)
	}
	if i := bytes.LastIndexByte(c.bytes(), '\n'); i >= 0 {
		return c.end(i + 1)
	}
	if len(c.held) > 0 {
		return c.recut()
	}
	c.long, c.step = true, firstStep
	if c.n == MaxChunk {
		return c.flush()
	}
	return nil
}

func (c *cutter) bytes() []byte {
	if c.buf == nil {
		return nil
	}
	return c.buf[:c.n]
}

// end ends the piece after at bytes of buf; the others begin the next one.
func (c *cutter) end(at int) error {
	rest := append([]byte(nil), c.bytes()[at:]...)
	c.confirm()
	if at > 0 || c.size == 0 {
		c.im.out <- assembly{leaf: c.leaf(at)}
	} else {
		c.n = 0
	}
	c.unread(rest)
	c.next(len(rest) > 0)
	return nil
}

// recut ends the piece at the mark in the first held leaf; what follows is read again.
func (c *cutter) recut() error {
	first := c.held[0]
	<-first.done
	if first.err != nil {
		return first.err
	}
	rest := append([]byte(nil), c.bytes()...)
	if c.buf == nil {
		c.buf = c.im.buffer()
	}
	if _, err := c.im.s.read(first.key, c.buf[:]); err != nil {
		return err
	}
	again := &heldReader{s: c.im.s, leaves: append([]*leaf(nil), c.held...), skip: c.mark}
	c.held = c.held[:0]
	c.im.out <- assembly{leaf: c.leaf(c.mark)}
	c.unread(rest)
	c.back = append(c.back, again)
	c.next(true)
	return nil
}

// next begins a piece; with carried bytes of the line that was being read, it is named already.
func (c *cutter) next(carried bool) {
	c.im.out <- assembly{name: c.name}
	c.size, c.long = 0, false
	c.name, c.named = c.from, carried
}

// heldReader reads stored leaves again, from skip bytes into the first.
type heldReader struct {
	s      *Store
	leaves []*leaf
	skip   int
	data   []byte // of leaves[0]
}

// Len is not 0 before the end.
func (h *heldReader) Len() int { return len(h.leaves) }

func (h *heldReader) Read(p []byte) (int, error) {
	for len(h.leaves) > 0 {
		l := h.leaves[0]
		if h.data == nil {
			if <-l.done; l.err != nil {
				return 0, l.err
			}
			var err error
			if h.data, err = h.s.read(l.key, nil); err != nil {
				return 0, err
			}
		}
		if n := copy(p, h.data[h.skip:]); n > 0 {
			h.skip += n
			return n, nil
		}
		h.leaves, h.data, h.skip = h.leaves[1:], nil, 0
	}
	return 0, io.EOF
}
