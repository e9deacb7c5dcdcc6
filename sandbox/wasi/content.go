package wasi

import (
	"bufio"
	"errors"
	"os"
)

// content is the bytes of a regular file or of standard input: given by the caller, or in memory, or in a host file once
// path is set.
type content struct {
	fixed *fixed // given by the caller, who alone says what they are; nothing below is used but open
	data  []byte
	path  string
	host  *os.File // while open
	size  int64
	open  int // descriptors on it
}

// length is the size in bytes.
func (s *System) length(c *content) (int64, errno) {
	if c.fixed == nil {
		return c.size, 0
	}
	size, err := c.fixed.length()
	if err != nil {
		return 0, s.hostFault(err)
	}
	return size, 0
}

// openHost opens the host file, if contents have one.
func (s *System) openHost(c *content) errno {
	if c.path == "" || c.host != nil {
		return 0
	}
	var err error
	if c.host, err = os.OpenFile(c.path, os.O_RDWR, 0); err != nil {
		return s.hostFault(err)
	}
	return 0
}

// readAt fills b from offset off, straight from the host file into b if there is one, and returns how much it could.
func (s *System) readAt(c *content, b []byte, off int64) (int, errno) {
	size, e := s.length(c)
	if e != 0 || off >= size {
		return 0, e
	}
	b = b[:min(int64(len(b)), size-off)]
	var n int
	var err error
	switch {
	case c.fixed != nil:
		n, err = c.fixed.readAt(b, off)
	case c.path == "":
		return copy(b, c.data[min(off, int64(len(c.data))):]), 0
	default:
		if e := s.openHost(c); e != 0 {
			return 0, e
		}
		n, err = c.host.ReadAt(b, off)
	}
	if err != nil {
		return n, s.hostFault(err)
	}
	return n, 0
}

// writeAt writes b at offset off of a file in area a. The limits are checked before anything is written.
func (s *System) writeAt(c *content, a *area, b []byte, off int64) (int, errno) {
	end := off + int64(len(b))
	if end < off {
		return 0, eFbig
	}
	if end > c.size {
		if e := s.resize(c, a, end); e != 0 {
			return 0, e
		}
	}
	if c.path == "" {
		return copy(c.data[off:end], b), 0
	}
	if e := s.openHost(c); e != 0 {
		return 0, e
	}
	n, err := c.host.WriteAt(b, off)
	if err != nil {
		return n, s.hostFault(err)
	}
	return n, 0
}

// resize makes contents exactly size bytes, new ones zero, and moves them to a host file when they get large.
func (s *System) resize(c *content, a *area, size int64) errno {
	grown := size - c.size
	if e := s.charge(a, grown); e != 0 {
		return e
	}
	if c.path == "" && (size > InlineMax || s.held+grown > heldMax) && grown > 0 {
		if e := s.spill(c); e != 0 {
			return e
		}
	}
	if c.path != "" {
		if e := s.openHost(c); e != 0 {
			return e
		}
		if err := c.host.Truncate(size); err != nil {
			return s.hostFault(err)
		}
		c.size = size
		return 0
	}
	s.held += grown
	c.size = size
	if old := int64(len(c.data)); size <= old {
		c.data = c.data[:size]
	} else {
		c.data = append(c.data, make([]byte, size-old)...)
	}
	return 0
}

// charge takes n bytes of an area's allowance, or stops the program when there are none left.
func (s *System) charge(a *area, n int64) errno {
	a.used += n
	switch {
	case n <= 0:
	case s.outArea.used+s.tmpArea.used+s.stateArea.used > s.cfg.Disk:
		s.halt(StopDisk, 0, nil)
	case s.outArea.used+s.stdout.size > s.cfg.Output:
		s.halt(StopOutput, 0, nil)
	}
	if s.stop != nil {
		return eNospc
	}
	return 0
}

// spill moves contents from memory to a host file.
func (s *System) spill(c *content) errno {
	f, path, err := s.createScratch("file")
	if err != nil {
		return s.hostFault(err)
	}
	if _, err := f.WriteAt(c.data, 0); err != nil {
		_ = f.Close()
		return s.hostFault(err)
	}
	s.held -= int64(len(c.data))
	c.path, c.host, c.data = path, f, nil
	return 0
}

func (s *System) createScratch(name string) (*os.File, string, error) {
	path := s.scratchFile(name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(s.cfg.Scratch, 0o700); err != nil {
			return nil, "", err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return f, path, err
}

// discard frees the contents of a file that has no name and no descriptor any more.
func (s *System) discard(n *node) {
	c := n.content
	if c.fixed != nil {
		return
	}
	n.area.used -= c.size
	if c.path == "" {
		s.held -= c.size
	} else {
		s.closeHost(c)
		_ = os.Remove(c.path) // what stays is removed with the scratch directory
	}
	n.content = &content{}
}

// discardAll frees the contents of all files under a directory. It makes no paths: a tree can be as deep as it has nodes.
func (s *System) discardAll(dir *node) {
	for _, n := range dir.names {
		switch n.kind {
		case typeDirectory:
			s.discardAll(n)
		case typeRegular:
			s.discard(n)
		}
	}
}

func (s *System) closeHost(c *content) {
	if c.fixed != nil {
		c.fixed.close()
	}
	if c.host != nil {
		_ = c.host.Close() // results do not depend on it: the bytes are in the page cache, or a write has failed before
		c.host = nil
	}
}

func (c *content) result() Content {
	return Content{Size: c.size, Data: c.data, Path: c.path}
}

// stream is standard output or standard error: bytes in memory until they are many, then in a host file.
type stream struct {
	sys     *System
	name    string
	path    string // host file; if it is set at the start, everything is also written there at once
	limit   int64  // of bytes kept; -1 for none of its own
	size    int64
	dropped int64
	data    []byte
	file    *os.File
	buf     *bufio.Writer // before file, where nobody follows the file
	spilled bool          // file has all the bytes, data none
}

// spillBuffer is how many bytes of standard output are gathered for one write to its host file.
const spillBuffer = 64 << 10

// write appends b. Standard output is under Config.Output; of the log what exceeds its limit is dropped.
func (t *stream) write(b []byte) errno {
	if t.limit >= 0 {
		if room := t.limit - t.size; int64(len(b)) > room {
			t.dropped += int64(len(b)) - room
			b = b[:room]
		}
	} else if t.size+int64(len(b))+t.sys.outArea.used > t.sys.cfg.Output {
		t.sys.halt(StopOutput, 0, nil)
		return eNospc
	}
	if len(b) == 0 {
		return 0
	}
	t.size += int64(len(b))
	if !t.spilled && t.size <= InlineMax {
		t.data = append(t.data, b...)
		if t.path == "" {
			return 0
		}
	} else if e := t.spill(); e != 0 {
		return e
	}
	return t.append(b)
}

// spill moves the stream to its host file.
func (t *stream) spill() errno {
	if t.spilled {
		return 0
	}
	t.spilled = true
	kept := t.data
	t.data = nil
	if t.path != "" {
		return 0 // the file has them already
	}
	f, path, err := t.sys.createScratch(t.name)
	if err != nil {
		return t.sys.hostFault(err)
	}
	t.file, t.path, t.buf = f, path, bufio.NewWriterSize(f, spillBuffer)
	return t.append(kept)
}

func (t *stream) append(b []byte) errno {
	var err error
	if t.file == nil {
		t.file, err = os.OpenFile(t.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return t.sys.hostFault(err)
		}
	}
	if t.buf != nil {
		_, err = t.buf.Write(b)
	} else {
		_, err = t.file.Write(b)
	}
	if err != nil {
		return t.sys.hostFault(err)
	}
	return 0
}

// finish returns what was written.
func (t *stream) finish() (Content, error) {
	if err := t.close(); err != nil {
		return Content{}, err
	}
	if t.spilled {
		return Content{Size: t.size, Path: t.path}, nil
	}
	return Content{Size: t.size, Data: t.data}, nil
}

func (t *stream) close() error {
	if t.file == nil {
		return nil
	}
	var errs []error
	if t.buf != nil {
		errs = append(errs, t.buf.Flush())
	}
	errs = append(errs, t.file.Close())
	t.file, t.buf = nil, nil
	return errors.Join(errs...)
}

// Keep writes b to a host file in the scratch directory and returns its path.
func (s *System) Keep(b []byte) (string, error) {
	f, path, err := s.createScratch("kept")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return path, errors.Join(err, f.Close())
}
