package wasi

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"strings"
	"unicode/utf8"
)

// ErrState is in the error of New for a state that cannot be restored, whoever made it: it is damaged, of another version, of
// another kind of run, or larger than the limits allow.
var ErrState = errors.New("wasi: bad state")

func badState(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrState}, args...)...)
}

// restore puts the state in a host file into /state, and sets the clock and the random source.
func (s *System) restore(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("wasi: state: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("wasi: state: %w", err)
	}
	if info.Size() > MaxState(s.cfg.Disk) {
		return badState("it has %d bytes, more than its limits allow", info.Size())
	}
	r := &stateReader{r: bufio.NewReaderSize(f, stateBuffer), left: info.Size(), sum: crc32.New(castagnoli)}
	if err := s.restoreFrom(r); err != nil {
		return err
	}
	s.saved = s.stateArea.revision
	return nil
}

func (s *System) restoreFrom(r *stateReader) error {
	if magic := r.text(len(stateMagic)); r.err == nil && magic != stateMagic {
		return badState("it is none")
	}
	if version := r.u16(); r.err == nil && version != StateVersion {
		return badState("it is of version %d, not %d", version, StateVersion)
	}
	want := byte(stateReal)
	if s.rng != nil {
		want = stateDeterministic
	}
	switch kind := r.u8(); {
	case r.err != nil:
	case kind > stateDeterministic:
		return badState("kind %d", kind)
	case kind != want:
		return badState("of a deterministic and a nondeterministic run, one made it and the other is to go on with it")
	case kind == stateDeterministic:
		if err := s.restorePosition(r); err != nil {
			return err
		}
	}
	if err := s.restoreTree(r); err != nil {
		return err
	}
	sum := r.sum.Sum32()
	switch {
	case r.u32() != sum && r.err == nil:
		return badState("it is damaged")
	case r.left != 0 && r.err == nil:
		return badState("there are %d bytes after its end", r.left)
	}
	return r.err
}

func (s *System) restorePosition(r *stateReader) error {
	wall, mono, used := r.u64(), r.u64(), r.u64()
	seed, n, unread := r.text(32), int(r.u8()), r.text(chachaUnread)
	switch {
	case r.err != nil:
		return r.err
	case wall > math.MaxInt64 || mono > math.MaxInt64 || wall < ClockStart || mono < monotonicStart:
		return badState("its clock cannot have got there")
	case n >= chachaUnread || strings.Trim(unread[:chachaUnread-n], "\x00") != "":
		return badState("its random source cannot have got there")
	}
	s.clock.wall, s.clock.mono = wall, mono
	var e []byte
	if n > 0 {
		e = append(append([]byte(readbufStart), byte(n)), unread[chachaUnread-n:]...)
	}
	e = binary.BigEndian.AppendUint64(append(e, chachaStart...), used)
	if err := s.rng.UnmarshalBinary(append(e, seed...)); err != nil {
		return badState("its random source cannot have got there")
	}
	return nil
}

// restoreTree reads the entries. It goes down and up again without a stack: a directory knows its parent.
func (s *System) restoreTree(r *stateReader) error {
	dir, last := s.state, []string{""}
	for {
		kind := r.u8()
		if kind == entryEnd {
			if r.err != nil || dir == s.state {
				return r.err
			}
			dir, last = dir.parent, last[:len(last)-1]
			continue
		}
		name := r.text(int(r.u8()))
		switch depth := len(last) - 1; {
		case r.err != nil:
			return r.err
		case ValidName(name) != nil || strings.Contains(name, "/"):
			return badState("a name that cannot be one: %.40q", name)
		case name <= last[depth]:
			return badState("its names are not in order")
		case s.nodes >= MaxNodes:
			return badState("more than %d names", MaxNodes)
		default:
			last[depth] = name
		}
		switch kind {
		case entryDir:
			dir, last = s.attach(dir, name, s.newNode(typeDirectory, s.stateArea)), append(last, "")
		case entrySymlink:
			n := s.newNode(typeSymlink, s.stateArea)
			n.target = r.text(int(r.u16()))
			if r.err == nil && !validTarget(n.target) {
				return badState("a symbolic link that cannot be one")
			}
			s.attach(dir, name, n)
		case entryFile:
			n := s.newNode(typeRegular, s.stateArea)
			n.content = &content{}
			s.attach(dir, name, n)
			if err := s.restoreContent(r, n.content); err != nil {
				return err
			}
		default:
			return badState("an entry of kind %d", kind)
		}
	}
}

func validTarget(t string) bool {
	return t != "" && len(t) <= MaxTarget && utf8.ValidString(t) && !strings.ContainsRune(t, 0)
}

// restoreContent reads a file. Nothing is allocated, in memory or on disk, for bytes that the state does not have.
func (s *System) restoreContent(r *stateReader, c *content) error {
	size := r.u64()
	switch {
	case r.err != nil:
		return r.err
	case size > uint64(r.left):
		return badState("it is cut off")
	case int64(size) > s.cfg.Disk-s.stateArea.used:
		return badState("its files have more than the %d bytes that they may", s.cfg.Disk)
	}
	var buf [4096]byte
	for off := int64(0); off < int64(size); {
		b := buf[:min(int64(len(buf)), int64(size)-off)]
		if r.fill(b); r.err != nil {
			return r.err
		}
		if _, e := s.writeAt(c, s.stateArea, b, off); e != 0 {
			return s.stop.Err // the host's: the limit was looked at
		}
		off += int64(len(b))
	}
	s.closeHost(c)
	return nil
}

// stateReader reads from a state. After an error it reads zeros.
type stateReader struct {
	r    *bufio.Reader
	left int64 // bytes that the file has yet
	sum  hash.Hash32
	err  error
}

func (r *stateReader) fill(b []byte) {
	if r.err != nil {
		clear(b)
		return
	}
	n, err := io.ReadFull(r.r, b)
	switch {
	case err == nil:
		_, _ = r.sum.Write(b) // never fails, see hash.Hash
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.err = badState("it is cut off")
	default:
		r.err = fmt.Errorf("wasi: state: %w", err)
	}
	r.left -= int64(n)
	if r.err != nil {
		clear(b)
	}
}

// text reads n bytes, at most 65,535.
func (r *stateReader) text(n int) string {
	b := make([]byte, n)
	r.fill(b)
	return string(b)
}

func (r *stateReader) u8() byte {
	var b [1]byte
	r.fill(b[:])
	return b[0]
}

func (r *stateReader) u16() uint16 {
	var b [2]byte
	r.fill(b[:])
	return binary.LittleEndian.Uint16(b[:])
}

func (r *stateReader) u32() uint32 {
	var b [4]byte
	r.fill(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (r *stateReader) u64() uint64 {
	var b [8]byte
	r.fill(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
