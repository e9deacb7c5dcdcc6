package wasi

import "encoding/binary"

// descriptor is an open file, directory or stream: node alone is a directory, node and file a regular file, file alone
// standard input, out one of the two streams.
type descriptor struct {
	node *node
	file *content
	out  *stream

	read, write bool
	rights      uint64
	flags       uint16
	offset      int64
	preopen     string
	listing     []entry // of a directory, since it was last read from its start
}

// entry is one name in a directory as it was when the listing was made.
type entry struct {
	name  string
	inode uint64
	kind  uint8
}

func (s *System) descriptor(fd uint64) (*descriptor, errno) {
	i := uint64(uint32(fd))
	if i >= uint64(len(s.fds)) || s.fds[i] == nil {
		return nil, eBadf
	}
	return s.fds[i], 0
}

// directory is the descriptor's directory.
func (s *System) directory(fd uint64) (*node, errno) {
	d, e := s.descriptor(fd)
	if e != 0 {
		return nil, e
	}
	if d.node == nil || d.node.kind != typeDirectory {
		return nil, eNotdir
	}
	return d.node, 0
}

// regular is a descriptor with contents that can be read (or written, if write is set) at any offset.
func (s *System) regular(fd uint64, write bool) (*descriptor, errno) {
	d, e := s.descriptor(fd)
	switch {
	case e != 0:
		return nil, e
	case d.file == nil && d.out == nil:
		return nil, eIsdir
	case write && !d.write, !write && !d.read:
		return nil, eBadf
	case d.out != nil:
		return nil, eSpipe
	}
	return d, 0
}

// install gives d the lowest free number.
func (s *System) install(d *descriptor) (uint32, errno) {
	for i, old := range s.fds {
		if old == nil {
			s.fds[i] = d
			return uint32(i), 0
		}
	}
	if len(s.fds) >= MaxDescriptors {
		return 0, eMfile
	}
	s.fds = append(s.fds, d)
	return uint32(len(s.fds) - 1), 0
}

// release drops what a closed descriptor held.
func (s *System) release(d *descriptor) {
	c := d.file
	if c == nil {
		return
	}
	if c.open--; c.open > 0 {
		return
	}
	s.closeHost(c)
	if d.node != nil && d.node.links == 0 {
		s.discard(d.node)
	}
}

func fdClose(s *System, _ *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	s.release(d)
	s.fds[uint32(a[0])] = nil
	return 0
}

func fdRenumber(s *System, _ *memory, a []uint64) errno {
	from, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	to, e := s.descriptor(a[1])
	if e != 0 {
		return e
	}
	if from == to {
		return 0
	}
	s.release(to)
	s.fds[uint32(a[1])] = from
	s.fds[uint32(a[0])] = nil
	return 0
}

func fdSync(s *System, _ *memory, a []uint64) errno {
	_, e := s.descriptor(a[0])
	return e
}

func fdAdvise(s *System, _ *memory, a []uint64) errno {
	if _, e := s.regular(a[0], false); e == eBadf || e == eSpipe {
		return e
	}
	if uint32(a[3]) > 5 {
		return eInval
	}
	return 0
}

func fdAllocate(s *System, _ *memory, a []uint64) errno {
	d, e := s.regular(a[0], true)
	if e != 0 {
		return e
	}
	off, n := int64(a[1]), int64(a[2])
	if off < 0 || n <= 0 || off+n < 0 {
		return eInval
	}
	if off+n <= d.file.size {
		return 0
	}
	d.node.area.revision++
	return s.resize(d.file, d.node.area, off+n)
}

// kind is the file type. The streams are regular files to a program, as after a redirection: a character device
// would make libraries take them for a terminal and write line by line.
func (d *descriptor) kind() uint8 {
	if d.node != nil {
		return d.node.kind
	}
	return typeRegular
}

func fdFdstatGet(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	b := m.slice(uint32(a[1]), 24)
	if b == nil {
		return eFault
	}
	clear(b)
	b[0] = d.kind()
	binary.LittleEndian.PutUint16(b[2:], d.flags)
	binary.LittleEndian.PutUint64(b[8:], d.rights)
	if d.kind() == typeDirectory {
		binary.LittleEndian.PutUint64(b[16:], rightsAll)
	}
	return 0
}

func fdFdstatSetFlags(s *System, _ *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	if uint32(a[1]) > flagsKnown {
		return eInval
	}
	d.flags = uint16(a[1])
	return 0
}

// fdFdstatSetRights takes rights away; those to inherit are the same for all and are not kept.
func fdFdstatSetRights(s *System, _ *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	if a[1]&^d.rights != 0 {
		return eNotcapable
	}
	d.rights = a[1]
	d.read = d.read && d.rights&rightRead != 0
	d.write = d.write && d.rights&rightWrite != 0
	return 0
}

func fdFilestatGet(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	switch {
	case d.node != nil:
		return s.putFilestat(m, uint32(a[1]), d.node)
	case d.file != nil:
		size, e := s.length(d.file)
		if e != 0 {
			return e
		}
		return putStat(m, uint32(a[1]), &node{kind: typeRegular, area: s.root.area, links: 1}, size)
	default:
		return putStat(m, uint32(a[1]), &node{kind: typeRegular, area: s.root.area, links: 1}, 0)
	}
}

func (s *System) putFilestat(m *memory, at uint32, n *node) errno {
	size := int64(0)
	switch n.kind {
	case typeRegular:
		var e errno
		if size, e = s.length(n.content); e != 0 {
			return e
		}
	case typeSymlink:
		size = int64(len(n.target))
	}
	return putStat(m, at, n, size)
}

func putStat(m *memory, at uint32, n *node, size int64) errno {
	b := m.slice(at, 64)
	if b == nil {
		return eFault
	}
	for i, v := range []uint64{n.area.device, n.inode, uint64(n.kind), n.links, uint64(size), n.atim, n.mtim, n.ctim} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return 0
}

func fdFilestatSetSize(s *System, _ *memory, a []uint64) errno {
	d, e := s.regular(a[0], true)
	if e != 0 {
		return e
	}
	if int64(a[1]) < 0 {
		return eInval
	}
	s.touch(d.node)
	return s.resize(d.file, d.node.area, int64(a[1]))
}

func fdFilestatSetTimes(s *System, _ *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 {
		return e
	}
	if d.node == nil {
		return eRofs
	}
	return s.setTimes(d.node, a[1], a[2], uint32(a[3]))
}

func (s *System) setTimes(n *node, atim, mtim uint64, flags uint32) errno {
	if flags > 15 || flags&3 == 3 || flags&12 == 12 {
		return eInval
	}
	if !n.area.writable {
		return eRofs
	}
	now := s.stamp()
	switch {
	case flags&1 != 0:
		n.atim = atim
	case flags&2 != 0:
		n.atim = now
	}
	switch {
	case flags&4 != 0:
		n.mtim = mtim
	case flags&8 != 0:
		n.mtim = now
	}
	n.ctim = now
	return 0
}

func fdPrestatGet(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 || d.preopen == "" {
		return eBadf
	}
	m.putU32(uint32(a[1]), 0) // the tag of a directory
	m.putU32(uint32(a[1])+4, uint32(len(d.preopen)))
	return 0
}

func fdPrestatDirName(s *System, m *memory, a []uint64) errno {
	d, e := s.descriptor(a[0])
	if e != 0 || d.preopen == "" {
		return eBadf
	}
	if uint32(a[2]) < uint32(len(d.preopen)) {
		return eNametoolong
	}
	copy(m.slice(uint32(a[1]), uint32(len(d.preopen))), d.preopen)
	return 0
}
