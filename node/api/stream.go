package api

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A stream carries named bytes in either direction: records of a tag byte, the length
// of the payload as a uvarint, and the payload. An item is a header and the data records
// after it. A stream ends with an end record, so that a cut one is never taken for whole.
const (
	tagHeader byte = 'h' // JSON
	tagData   byte = 'd'
	tagError  byte = 'e' // JSON of an Error; nothing follows
	tagEnd    byte = 'z' // JSON, or nothing; nothing follows
)

const (
	// maxHeader bounds the JSON in a record: a path of 4 KiB, six times as long when
	// every byte is escaped, and room for the other fields.
	maxHeader = 64 << 10
	// maxPart bounds a data record: what one Write of a chunk gives.
	maxPart = 1 << 20
	// streamBuffer is what each end of a stream buffers: copies of this size cost far
	// less than the system calls that move them.
	streamBuffer = 64 << 10
)

// streamWriter writes a stream. Its zero value is of no use; nothing is sent for
// sure before end, fail or flush.
type streamWriter struct{ w *bufio.Writer }

func newStreamWriter(w io.Writer) *streamWriter {
	return &streamWriter{bufio.NewWriterSize(w, streamBuffer)}
}

func (s *streamWriter) record(tag byte, payload []byte) error {
	var head [1 + binary.MaxVarintLen64]byte
	head[0] = tag
	n := 1 + binary.PutUvarint(head[1:], uint64(len(payload)))
	if _, err := s.w.Write(head[:n]); err != nil {
		return err
	}
	_, err := s.w.Write(payload)
	return err
}

// header starts an item; its bytes are then written to s.
func (s *streamWriter) header(v any) error { return s.json(tagHeader, v) }

func (s *streamWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		part := p[:min(len(p), maxPart)]
		if err := s.record(tagData, part); err != nil {
			return written, err
		}
		written += len(part)
		p = p[len(part):]
	}
	return written, nil
}

// end ends the stream as whole; v may be nil.
func (s *streamWriter) end(v any) error {
	if err := s.json(tagEnd, v); err != nil {
		return err
	}
	return s.w.Flush()
}

// fail ends the stream with an error that its reader gets.
func (s *streamWriter) fail(e *Error) error {
	if err := s.json(tagError, e); err != nil {
		return err
	}
	return s.w.Flush()
}

func (s *streamWriter) json(tag byte, v any) error {
	if v == nil {
		return s.record(tag, nil)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("api: stream: %w", err)
	}
	if len(b) > maxHeader {
		return Errorf(KindInvalid, "api: stream: a name or message is longer than %d bytes", maxHeader)
	}
	return s.record(tag, b)
}

// streamReader reads a stream. It allocates at most a header of maxHeader bytes.
type streamReader struct {
	r       *bufio.Reader
	left    uint64 // of the data record that is being read
	tag     byte   // of the record that has been begun and is no data; 0: none
	size    uint64 // of its payload
	failed  error
	trailer []byte // payload of the end record
}

func newStreamReader(r io.Reader) *streamReader {
	return &streamReader{r: bufio.NewReaderSize(r, streamBuffer)}
}

// next skips to the next header and decodes it into v; io.EOF after the last item.
func (s *streamReader) next(v any) error {
	if _, err := io.Copy(io.Discard, readerOnly{s}); err != nil {
		return err
	}
	if s.failed != nil {
		return s.failed
	}
	return s.take(v)
}

// take takes the record that has been begun; a header's JSON goes into v.
func (s *streamReader) take(v any) error {
	payload := make([]byte, s.size)
	if _, err := io.ReadFull(s.r, payload); err != nil {
		return s.fault(cut(err))
	}
	switch s.tag {
	case tagHeader:
		s.tag = 0
		if err := json.Unmarshal(payload, v); err != nil {
			return s.fault(Errorf(KindInvalid, "api: stream: header: %w", err))
		}
		return nil
	case tagEnd:
		s.trailer = payload
		return s.fault(io.EOF)
	default:
		e := new(Error)
		if err := json.Unmarshal(payload, e); err != nil {
			return s.fault(Errorf(KindInvalid, "api: stream: error record: %w", err))
		}
		return s.fault(e)
	}
}

// Read reads the item's bytes.
func (s *streamReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.left == 0 {
		if s.failed != nil {
			return 0, s.failed
		}
		if s.tag == 0 {
			if err := s.begin(); err != nil {
				return 0, s.fault(err)
			}
		}
		switch s.tag {
		case tagHeader, tagEnd:
			return 0, io.EOF
		case tagError:
			return 0, s.take(nil)
		}
	}
	n, err := s.r.Read(p[:min(uint64(len(p)), s.left)])
	s.left -= uint64(n)
	if err != nil {
		return n, s.fault(cut(err))
	}
	return n, nil
}

// begin reads the head of the next record.
func (s *streamReader) begin() error {
	tag, err := s.r.ReadByte()
	if err != nil {
		return cut(err)
	}
	size, err := binary.ReadUvarint(s.r)
	if err != nil {
		return cut(err)
	}
	switch tag {
	case tagData:
		if size > maxPart {
			return Errorf(KindInvalid, "api: stream: a part of %d bytes, at most %d are allowed", size, maxPart)
		}
		s.left = size
	case tagHeader, tagError, tagEnd:
		if size > maxHeader {
			return Errorf(KindInvalid, "api: stream: a header of %d bytes, at most %d are allowed", size, maxHeader)
		}
		s.tag, s.size = tag, size
	default:
		return Errorf(KindInvalid, "api: stream: unknown record %q", tag)
	}
	return nil
}

// fault makes err what every later call gives.
func (s *streamReader) fault(err error) error {
	s.failed, s.left = err, 0
	return err
}

// cut names the end of input for what it is here: too early.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readerOnly hides what io.Copy would use instead of Read.
type readerOnly struct{ io.Reader }
