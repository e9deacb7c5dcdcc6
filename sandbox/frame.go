package sandbox

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/sandbox/wasi"
	"github.com/fxamacker/cbor/v2"
)

// A child says with an empty response that it is ready; then the pool sends a request, or some at once, and the child a response
// to each in their order, over two pipes; before the one to a task, it may send responses with a Notice alone. A response waits up to
// holdFor for others to go with it, while there is a request to go on with. A message is the length of a
// header and of a body, four bytes each, little-endian; the header as CBOR, a struct as an array of its fields; the body, which has the bytes of contents
// that are returned inline. The child runs foreign code: the pool takes nothing that it says for a path or a size.
const (
	// maxHeader holds MaxInFiles and MaxHostFiles with paths of some 256 bytes, beside MaxArgBytes of arguments; or MaxOutFiles
	// entries with MaxOutNames bytes of names.
	maxHeader = 16 << 20
	maxBody   = InlineTotal + wasi.InlineMax
)

// request asks the child to run a task, or to compile its program if Compile is set.
type request struct {
	_ struct{} `cbor:",toarray"`

	Compile bool
	Task    Task
	Scratch string
	Every   time.Duration // least time between snapshots; 0 for none at all
}

// response is the child's answer.
type response struct {
	_ struct{} `cbor:",toarray"`

	Uncompiled bool   // there is no code for the program in the cache: compile it and ask again
	HostError  string // the host failed, no fault of the program
	BadState   string // why the task's state cannot be restored; nothing was run

	Notice *notice // the task goes on, and nothing else is set

	Class      Class
	Exit       int32
	Reason     string
	Stdout     piece
	Log        piece
	LogDropped int64
	Out        []outPiece
	Scratched  bool // the scratch directory was used
	CPU        time.Duration
	Wall       time.Duration // in the child
	MaxMemory  int64
}

// piece is contents in a response: the next Size bytes of the body, or the file with that name in the scratch directory.
type piece struct {
	_ struct{} `cbor:",toarray"`

	Size int64
	File string
}

type outPiece struct {
	_ struct{} `cbor:",toarray"`

	Name  string
	Piece piece
}

// codec is how headers are coded. Bytes that are no text, as arguments may be, cross as they are.
type codec struct {
	encode cbor.EncMode
	decode cbor.DecMode
}

// frames is the codec of headers, made once. Its limits are above those of any header within maxHeader.
var frames = sync.OnceValue(func() codec {
	e, err := cbor.EncOptions{}.EncMode()
	if err != nil {
		panic("sandbox: frames: " + err.Error())
	}
	d, err := cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: maxHeader}.DecMode()
	if err != nil {
		panic("sandbox: frames: " + err.Error())
	}
	return codec{e, d}
})

// appendFrame appends a message.
func appendFrame(b []byte, header any, body []byte) ([]byte, error) {
	h, err := frames().encode.Marshal(header)
	if err != nil {
		return b, err
	}
	if len(h) > maxHeader || len(body) > maxBody {
		return b, fmt.Errorf("sandbox: message of %d and %d bytes is too large", len(h), len(body))
	}
	b = slices.Grow(b, 8+len(h)+len(body))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return append(append(b, h...), body...), nil
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
	if err := frames().decode.Unmarshal(b[:h], header); err != nil {
		return nil, fmt.Errorf("sandbox: message: %w", err)
	}
	return b[h:], nil
}
