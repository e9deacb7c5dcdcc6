package chunkstore

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/multiformats/go-varint"
)

// Chunks that get smaller by it cross the wire compressed: a line is slower than a core, which packs some 300 to 500 MB/s of text to a
// third with S2 and unpacks twice as much. Noise is found out by its first block, at some 10 GB/s.

const (
	// packBlock is how much is compressed at a time: what a served stream has a buffer for.
	packBlock = serveBuffer
	// packLeast is the size from which a chunk is tried.
	packLeast = 1 << 10
)

// packed is room for a block on its way in or out, and for what S2 may write of one that does not get smaller.
type packed [packBlock + 64]byte

var packs = sync.Pool{New: func() any { return new(packed) }}

// pack gives a block compressed into buf; nil: that would save less than an eighth, which is not worth undoing.
func pack(buf *packed, block []byte) []byte {
	out := s2.Encode(buf[:0], block)
	if len(out) > len(block)-len(block)/8 {
		return nil
	}
	return out
}

// appendBlock encodes a block up to its bytes, of which n are packed; 0: it is as it is.
func appendBlock(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

// unpack reads the blocks of an answer into data.
func unpack(r *bufio.Reader, data []byte) error {
	buf := packs.Get().(*packed)
	defer packs.Put(buf)
	for len(data) > 0 {
		block := data[:min(packBlock, len(data))]
		data = data[len(block):]
		n, err := varint.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("block length: %w", noEOF(err))
		}
		if n > packBlock {
			return fmt.Errorf("block of %d bytes: %w", n, errWire)
		}
		if n == 0 {
			if _, err := io.ReadFull(r, block); err != nil {
				return noEOF(err)
			}
			continue
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return noEOF(err)
		}
		if size, err := s2.DecodedLen(buf[:n]); err != nil || size != len(block) {
			return fmt.Errorf("block of %d bytes, not %d: %w", size, len(block), errWire)
		}
		if _, err := s2.Decode(block, buf[:n]); err != nil {
			return fmt.Errorf("block: %w: %w", errWire, err)
		}
	}
	return nil
}
