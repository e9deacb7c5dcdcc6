package wasi

import "encoding/binary"

func fdRead(s *System, m *memory, a []uint64) errno {
	d, e := s.regular(a[0], false)
	if e != 0 {
		return e
	}
	n, e := s.readVectors(m, d.file, uint32(a[1]), uint32(a[2]), d.offset)
	if e != 0 {
		return e
	}
	d.offset += n
	m.putU32(uint32(a[3]), uint32(n))
	return 0
}

func fdPread(s *System, m *memory, a []uint64) errno {
	d, e := s.regular(a[0], false)
	if e != 0 {
		return e
	}
	if int64(a[3]) < 0 {
		return eInval
	}
	n, e := s.readVectors(m, d.file, uint32(a[1]), uint32(a[2]), int64(a[3]))
	if e != 0 {
		return e
	}
	m.putU32(uint32(a[4]), uint32(n))
	return 0
}

func (s *System) readVectors(m *memory, c *content, vectors, count uint32, off int64) (int64, errno) {
	total := int64(0)
	var failed errno
	e := m.vectors(vectors, count, func(b []byte) bool {
		n, e := s.readAt(c, b, off+total)
		total += int64(n)
		failed = e
		return e == 0 && n == len(b)
	})
	if e == 0 {
		e = failed
	}
	return total, e
}

func fdWrite(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e == 0 && d.out != nil && d.write {
		return s.writeStream(m, d.out, uint32(a[1]), uint32(a[2]), uint32(a[3]))
	}
	if d, e = s.regular(a[0], true); e != 0 {
		return e
	}
	if d.flags&flagAppend != 0 {
		d.offset = d.file.size
	}
	n, e := s.writeVectors(m, d, uint32(a[1]), uint32(a[2]), d.offset)
	d.offset += n
	if e != 0 {
		return e
	}
	m.putU32(uint32(a[3]), uint32(n))
	return 0
}

func fdPwrite(s *System, m *memory, a []uint64) errno {
	d, e := s.regular(a[0], true)
	if e != 0 {
		return e
	}
	if int64(a[3]) < 0 {
		return eInval
	}
	n, e := s.writeVectors(m, d, uint32(a[1]), uint32(a[2]), int64(a[3]))
	if e != 0 {
		return e
	}
	m.putU32(uint32(a[4]), uint32(n))
	return 0
}

func (s *System) writeVectors(m *memory, d *descriptor, vectors, count uint32, off int64) (int64, errno) {
	total := int64(0)
	var failed errno
	e := m.vectors(vectors, count, func(b []byte) bool {
		n, e := s.writeAt(d.file, d.node.area, b, off+total)
		total += int64(n)
		failed = e
		return e == 0
	})
	if total > 0 {
		s.touch(d.node)
	}
	if e == 0 {
		e = failed
	}
	return total, e
}

func (s *System) writeStream(m *memory, t *stream, vectors, count, written uint32) errno {
	total := 0
	var failed errno
	e := m.vectors(vectors, count, func(b []byte) bool {
		failed = t.write(b)
		total += len(b)
		return failed == 0
	})
	if e == 0 {
		e = failed
	}
	if e != 0 {
		return e
	}
	m.putU32(written, uint32(total))
	return 0
}

func fdSeek(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	switch {
	case e != 0:
		return e
	case d.out != nil:
		return eSpipe
	case d.file == nil:
		return eBadf
	}
	var base int64
	switch uint32(a[2]) {
	case 0:
	case 1:
		base = d.offset
	case 2:
		if base, e = s.length(d.file); e != 0 {
			return e
		}
	default:
		return eInval
	}
	to := base + int64(a[1])
	if to < 0 { // also when the sum is beyond the largest offset: base is not negative
		return eInval
	}
	d.offset = to
	m.putU64(uint32(a[3]), uint64(to))
	return 0
}

func fdTell(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	switch {
	case e != 0:
		return e
	case d.out != nil:
		return eSpipe
	case d.file == nil:
		return eBadf
	}
	m.putU64(uint32(a[1]), uint64(d.offset))
	return 0
}

// list is what a directory holds: itself, its parent, and its names in byte order.
func (n *node) list() []entry {
	parent := n.parent
	if parent == nil {
		parent = n
	}
	entries := []entry{{".", n.inode, typeDirectory}, {"..", parent.inode, typeDirectory}}
	for _, name := range n.sorted() {
		child := n.names[name]
		entries = append(entries, entry{name, child.inode, child.kind})
	}
	return entries
}

// fdReaddir writes entries from a cookie on, which is an index into the listing made when the directory was last read
// from its start: names that come or go meanwhile shift nothing. The last entry is cut where the buffer ends.
func fdReaddir(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	if d.node == nil || d.node.kind != typeDirectory {
		return eNotdir
	}
	cookie := a[3]
	if cookie == 0 || d.listing == nil {
		d.listing = d.node.list()
	}
	buf := m.slice(uint32(a[1]), uint32(a[2]))
	used := 0
	for i := cookie; i < uint64(len(d.listing)) && used < len(buf); i++ {
		entry := d.listing[i]
		var head [24]byte
		binary.LittleEndian.PutUint64(head[0:], i+1)
		binary.LittleEndian.PutUint64(head[8:], entry.inode)
		binary.LittleEndian.PutUint32(head[16:], uint32(len(entry.name)))
		head[20] = entry.kind
		used += copy(buf[used:], head[:])
		used += copy(buf[used:], entry.name)
	}
	m.putU32(uint32(a[4]), uint32(used))
	return 0
}
