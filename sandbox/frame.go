package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// A child says with an empty response that it is ready; then the pool sends one request at a time, and the child a response
// to each, over two pipes; before the one to a task, it may send responses with a Notice alone. A message is the length of a
// header and of a body, four bytes each, little-endian; the header as JSON; the body, which has the bytes of contents
// that are returned inline. The child runs foreign code: the pool takes nothing that it says for a path or a size.
const (
	// maxHeader holds MaxOutFiles entries with MaxOutNames bytes of names, escaped sixfold, or MaxArgBytes of arguments.
	maxHeader = 16 << 20
	maxBody   = InlineTotal + wasi.InlineMax
)

// request asks the child to run a task, or to compile its program if Compile is set.
type request struct {
	Compile bool `json:",omitempty"`
	Task    Task
	Scratch string
	Every   time.Duration `json:",omitempty"` // least time between snapshots; 0 for none at all
}

// response is the child's answer.
type response struct {
	Uncompiled bool   `json:",omitempty"` // there is no code for the program in the cache: compile it and ask again
	HostError  string `json:",omitempty"` // the host failed, no fault of the program
	BadState   string `json:",omitempty"` // why the task's state cannot be restored; nothing was run

	Notice *notice `json:",omitempty"` // the task goes on, and nothing else is set

	Class      Class
	Exit       int32
	Reason     string     `json:",omitempty"`
	Stdout     piece      `json:",omitzero"`
	Log        piece      `json:",omitzero"`
	LogDropped int64      `json:",omitempty"`
	Out        []outPiece `json:",omitempty"`
	Scratched  bool       `json:",omitempty"` // the scratch directory was used
	CPU        time.Duration
	MaxMemory  int64
}

// piece is contents in a response: the next Size bytes of the body, or the file with that name in the scratch directory.
type piece struct {
	Size int64
	File string `json:",omitempty"`
}

type outPiece struct {
	Name string
	piece
}

// writeFrame writes a message with one write.
func writeFrame(w io.Writer, header any, body []byte) error {
	h, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if len(h) > maxHeader || len(body) > maxBody {
		return fmt.Errorf("sandbox: message of %d and %d bytes is too large", len(h), len(body))
	}
	b := make([]byte, 8, 8+len(h)+len(body))
	binary.LittleEndian.PutUint32(b, uint32(len(h)))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(body)))
	b = append(append(b, h...), body...)
	_, err = w.Write(b)
	return err
}

// readFrame reads a message into header and returns its body.
func readFrame(r io.Reader, header any) ([]byte, error) {
	var lengths [8]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return nil, err
	}
	h, n := binary.LittleEndian.Uint32(lengths[:]), binary.LittleEndian.Uint32(lengths[4:])
	if h > maxHeader || n > maxBody {
		return nil, fmt.Errorf("sandbox: message of %d and %d bytes is too large", h, n)
	}
	b := make([]byte, int(h)+int(n))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b[:h], header); err != nil {
		return nil, fmt.Errorf("sandbox: message: %w", err)
	}
	return b[h:], nil
}
