package chunkstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-varint"
)

// ProtocolID names the bulk fetch protocol. On one stream the asking peer writes requests, as many ahead as it likes, and
// the other answers them in order:
//
//	request = length (uvarint, 1..136), CID (binary, length bytes)
//	answer  = status (1 byte), and
//	          if that is 0: length (uvarint, 0..1 MiB), data (length bytes)
//	          if that is 5: length of the data (uvarint, 1..1 MiB), blocks
//	block   = length (uvarint, 0..128 KiB), bytes: the next 128 KiB of the data, or what is left, as a block of S2
//	          (https://github.com/klauspost/compress/tree/master/s2, an extension of Snappy's); of length 0: those bytes as they are
//
// Varints are minimal, at most 9 bytes. After any status but 0, 1 and 5, and after anything malformed, the answering peer ends
// the stream. The asking peer ends it when it needs nothing more.
//
// ProtocolV1 is the same without status 5.
const (
	ProtocolID protocol.ID = "/mesh/chunks/1.1.0"
	ProtocolV1 protocol.ID = "/mesh/chunks/1.0.0"
)

// status is the first byte of an answer.
type status byte

const (
	statusOK       status = 0
	statusNotFound status = 1 // the chunk is not here
	statusRefused  status = 2 // this peer does not serve the asking one
	statusBusy     status = 3 // too many streams are being served; later, or another holder
	statusFailed   status = 4 // the chunk is here but cannot be read
	statusPacked   status = 5 // the chunk follows, compressed
)

var errWire = errors.New("malformed message")

// appendRequest encodes a request.
func appendRequest(b []byte, c cid.Cid) []byte {
	b = binary.AppendUvarint(b, uint64(c.ByteLen()))
	return append(b, c.KeyString()...)
}

// readRequest decodes a request. The error is io.EOF where the stream ends between two requests.
func readRequest(r *bufio.Reader) (cid.Cid, error) {
	n, err := varint.ReadUvarint(r)
	if err == io.EOF {
		return cid.Undef, err
	}
	if err != nil {
		return cid.Undef, fmt.Errorf("request length: %w", err)
	}
	if n == 0 || n > maxCID {
		return cid.Undef, fmt.Errorf("request of %d bytes: %w", n, errWire)
	}
	var buf [maxCID]byte
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return cid.Undef, fmt.Errorf("request: %w", noEOF(err))
	}
	c, err := cid.Cast(buf[:n])
	if err != nil {
		return cid.Undef, fmt.Errorf("request: %w: %v", errWire, err)
	}
	return c, nil
}

// appendAnswer encodes an answer up to its data.
func appendAnswer(b []byte, s status, size int) []byte {
	b = append(b, byte(s))
	if s.data() {
		b = binary.AppendUvarint(b, uint64(size))
	}
	return b
}

// data tells whether an answer brings the chunk.
func (s status) data() bool { return s == statusOK || s == statusPacked }

// readAnswer decodes an answer up to its data, which has size bytes.
func readAnswer(r *bufio.Reader) (s status, size int, err error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, fmt.Errorf("answer: %w", noEOF(err))
	}
	s = status(b)
	if s > statusPacked {
		return s, 0, fmt.Errorf("answer of status %d: %w", s, errWire)
	}
	if !s.data() {
		return s, 0, nil
	}
	n, err := varint.ReadUvarint(r)
	if err != nil {
		return s, 0, fmt.Errorf("answer length: %w", noEOF(err))
	}
	if n > MaxChunk || n == 0 && s == statusPacked {
		return s, 0, fmt.Errorf("answer of %d bytes: %w", n, errWire)
	}
	return s, int(n), nil
}

// noEOF: the end of a stream in the middle of something is not a proper end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
