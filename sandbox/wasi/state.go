package wasi

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
)

// A state is the file that SaveState writes and Config.State names: what is in /state, and where the deterministic clock
// and random source were. The same state gives the same bytes, whatever engine, peer or order of writing led to it.
// All numbers are little-endian.
//
//	state   = "mesh state" version:u16 kind:u8 [position] list crc:u32
//	position = wall:u64 monotonic:u64 used:u64 seed:32 unread:u8 bytes:8   with kind 1, of a deterministic run; kind 0 has none
//	list    = entry* 0:u8                                                  in ascending byte order of the names
//	entry   = 1:u8 name size:u64 content                                   a file
//	        | 2:u8 name list                                               a directory
//	        | 3:u8 name length:u16 target                                  a symbolic link
//	name    = length:u8 bytes                                              one part of a path
//
// wall and monotonic are in nanoseconds. used and seed are the state of math/rand/v2's ChaCha8 (C2SP chacha8rand), unread how
// many of its last bytes it has yet to give, which end the 8 bytes that follow; the others are zero. crc is CRC-32C of all that
// comes before: against torn files; who fetches a state from a peer knows its hash. Time stamps, inode numbers and open files
// are not kept: a file that is restored has the time of the checkpoint.
const (
	stateMagic = "mesh state"
	// StateVersion is the version that SaveState writes, and the only one that is read.
	StateVersion = 1

	stateReal          = 0
	stateDeterministic = 1

	entryEnd     = 0
	entryFile    = 1
	entryDir     = 2
	entrySymlink = 3

	stateFixed  = len(stateMagic) + 2 + 1 + 3*8 + 32 + 1 + 8 + 1 + 4 // bytes beside the entries
	stateBuffer = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MaxState is the most bytes of a state of a run with that Config.Disk.
func MaxState(disk int64) int64 {
	const entries = MaxNodes * (1 + 1 + MaxName + 2 + MaxTarget + 1) // no entry is longer, contents apart
	if disk > math.MaxInt64-entries-int64(stateFixed) {
		return math.MaxInt64
	}
	return disk + entries + int64(stateFixed)
}

// Unsaved reports whether /state has changed since the start or the last SaveState.
func (s *System) Unsaved() bool { return s.stateArea.revision != s.saved }

// Quiet reports that no file in /state is open for writing.
func (s *System) Quiet() bool {
	for _, d := range s.fds {
		if d != nil && d.write && d.node != nil && d.node.links > 0 && d.node.area == s.stateArea {
			return false
		}
	}
	return true
}

// SaveState writes the state, between two calls. An error is of w or of the host; the program can go on.
func (s *System) SaveState(w io.Writer) error {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), stateBuffer)
	b := binary.LittleEndian.AppendUint16([]byte(stateMagic), StateVersion)
	if s.rng == nil {
		b = append(b, stateReal)
	} else {
		b = append(b, stateDeterministic)
		b = binary.LittleEndian.AppendUint64(b, s.clock.wall)
		b = binary.LittleEndian.AppendUint64(b, s.clock.mono)
		b = s.appendRandom(b)
	}
	_, err := out.Write(b)
	if err == nil {
		err = saveList(out, s.state)
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	}
	if err != nil {
		return fmt.Errorf("wasi: save state: %w", err)
	}
	s.saved = s.stateArea.revision
	return nil
}

// How ChaCha8's own encoding begins; before it, there may be what is yet to give, with another start and a length.
const (
	chachaStart  = "chacha8:"
	readbufStart = "readbuf:"
	chachaUnread = 8 // bytes that a draw makes, of which some are yet to give
)

// appendRandom appends the position of the random source.
func (s *System) appendRandom(b []byte) []byte {
	var unread [chachaUnread]byte
	n := 0
	e, _ := s.rng.MarshalBinary() // never fails, see math/rand/v2.ChaCha8
	if string(e[:len(readbufStart)]) == readbufStart {
		e = e[len(readbufStart):]
		n = int(e[0])
		copy(unread[chachaUnread-n:], e[1:1+n])
		e = e[1+n:]
	}
	e = e[len(chachaStart):]
	b = binary.LittleEndian.AppendUint64(b, binary.BigEndian.Uint64(e))
	b = append(b, e[8:]...)
	return append(append(b, byte(n)), unread[:]...)
}

// saveList writes what is in a directory.
func saveList(w *bufio.Writer, dir *node) error {
	for _, name := range dir.sorted() {
		n := dir.names[name]
		b := []byte{entryFile, byte(len(name))}
		switch n.kind {
		case typeDirectory:
			b[0] = entryDir
		case typeSymlink:
			b[0] = entrySymlink
		}
		b = append(b, name...)
		switch n.kind {
		case typeRegular:
			b = binary.LittleEndian.AppendUint64(b, uint64(n.content.size))
		case typeSymlink:
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(n.target))), n.target...)
		}
		_, err := w.Write(b)
		switch {
		case err != nil:
		case n.kind == typeDirectory:
			err = saveList(w, n)
		case n.kind == typeRegular:
			err = saveContent(w, n.content)
		}
		if err != nil {
			return err
		}
	}
	return w.WriteByte(entryEnd)
}

func saveContent(w io.Writer, c *content) error {
	if c.path == "" {
		_, err := w.Write(c.data)
		return err
	}
	f, err := os.Open(c.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, f, c.size)
	return err
}
