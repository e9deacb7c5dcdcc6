package protocol_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFramesComeBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(4000, 4200), rapid.IntRange(60_000, 300_000)), 1, 6).Draw(t, "sizes")
		var stream bytes.Buffer
		for i, n := range sizes {
			require.NoError(t, protocol.WriteFrame(&stream, bytes.Repeat([]byte{byte(i + 1)}, n)))
		}
		r := protocol.NewReader(iotest.HalfReader(&stream), protocol.MaxMessage)
		defer r.Close()
		for i, n := range sizes {
			b, err := r.ReadFrame()
			require.NoError(t, err)
			require.Equal(t, bytes.Repeat([]byte{byte(i + 1)}, n), b)
		}
		_, err := r.ReadFrame()
		require.Equal(t, io.EOF, err)
	})
}

func TestFramesAreWrittenAtOnce(t *testing.T) {
	var w writes
	require.NoError(t, protocol.WriteFrame(&w, make([]byte, 100_000)))
	require.Equal(t, writes{100_003}, w)
	require.ErrorIs(t, protocol.WriteFrame(&w, make([]byte, protocol.MaxMessage+1)), protocol.ErrSize)
	require.Len(t, w, 1)
}

// writes is how long each Write was.
type writes []int

func (w *writes) Write(b []byte) (int, error) {
	*w = append(*w, len(b))
	return len(b), nil
}

func TestBrokenFrames(t *testing.T) {
	length := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"ends in the length":      {[]byte{0x80}, io.ErrUnexpectedEOF},
		"ends after the length":   {[]byte{5}, io.ErrUnexpectedEOF},
		"ends in the frame":       {[]byte{5, 1, 2}, io.ErrUnexpectedEOF},
		"ends in a large frame":   {append(length(100_000), make([]byte, 70_000)...), io.ErrUnexpectedEOF},
		"over the limit":          {length(200_001), protocol.ErrSize},
		"far over the limit":      {length(1 << 62), protocol.ErrSize},
		"length without end":      {bytes.Repeat([]byte{0xff}, 20), protocol.ErrSize},
		"length in a longer form": {[]byte{0x81, 0, 1}, protocol.ErrEncoding},
	} {
		t.Run(name, func(t *testing.T) {
			r := protocol.NewReader(bytes.NewReader(c.stream), 200_000)
			defer r.Close()
			_, err := r.ReadFrame()
			require.ErrorIs(t, err, c.want)
			require.NotEqual(t, io.EOF, err)
		})
	}
	broken := errors.New("broken")
	_, err := protocol.NewReader(iotest.ErrReader(broken), 100).ReadFrame()
	require.ErrorIs(t, err, broken)
}

// A length costs its sender nothing, so it gets no memory before its bytes come.
func TestALengthIsWorthLittleMemory(t *testing.T) {
	stream := binary.AppendUvarint(nil, protocol.MaxMessage)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 50 {
		r := protocol.NewReader(bytes.NewReader(stream), protocol.MaxMessage)
		_, err := r.ReadFrame()
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(50*protocol.MaxMessage/4))
}
