package wasi

import (
	"strings"
	"unicode/utf8"
)

// path is a path from guest memory.
func (m *memory) path(ptr, n uint64) (string, errno) {
	if uint32(n) > MaxPath {
		return "", eNametoolong
	}
	b := m.slice(uint32(ptr), uint32(n))
	switch {
	case m.fault:
		return "", eFault
	case !utf8.Valid(b):
		return "", eIlseq
	}
	p := string(b)
	if strings.ContainsRune(p, 0) {
		return "", eInval
	}
	return p, 0
}

// at resolves the path at ptr relative to a directory's descriptor.
func (s *System) at(m *memory, fd, ptr, n uint64, follow bool) (place, errno) {
	dir, e := s.directory(fd)
	if e != 0 {
		return place{}, e
	}
	p, e := m.path(ptr, n)
	if e != 0 {
		return place{}, e
	}
	return s.walk(dir, p, follow)
}

func pathCreateDirectory(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[1], a[2], false)
	if e != 0 {
		return e
	}
	if p.node != nil {
		return eExist
	}
	_, e = s.create(p, typeDirectory)
	return e
}

func pathFilestatGet(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[2], a[3], a[1]&1 != 0)
	if e != 0 {
		return e
	}
	if p.node == nil {
		return eNoent
	}
	return s.putFilestat(m, uint32(a[4]), p.node)
}

func pathFilestatSetTimes(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[2], a[3], a[1]&1 != 0)
	if e != 0 {
		return e
	}
	if p.node == nil {
		return eNoent
	}
	return s.setTimes(p.node, a[4], a[5], uint32(a[6]))
}

// pathLink gives a file a second name, in the same area. In /state a file has one name: a state has no links, so that it
// cannot be larger than the files that it is made of.
func pathLink(s *System, m *memory, a []uint64) errno {
	old, e := s.at(m, a[0], a[2], a[3], a[1]&1 != 0)
	if e != 0 {
		return e
	}
	p, e := s.at(m, a[4], a[5], a[6], false)
	if e != 0 {
		return e
	}
	switch {
	case old.node == nil:
		return eNoent
	case old.node.kind == typeDirectory:
		return ePerm
	case p.node != nil:
		return eExist
	case p.slash:
		return eNoent
	}
	if e := p.writable(); e != 0 {
		return e
	}
	if old.node.area != p.dir.area {
		return eXdev
	}
	if p.dir.area == s.stateArea {
		return ePerm
	}
	if s.nodes >= MaxNodes {
		return eNospc
	}
	s.attach(p.dir, p.name, old.node)
	return 0
}

func pathOpen(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[2], a[3], a[1]&1 != 0)
	if e != 0 {
		return e
	}
	flags, fdflags := uint32(a[4]), uint32(a[7])
	if flags > 15 || fdflags > flagsKnown {
		return eInval
	}
	write := a[5]&(rightWrite|rightAlloc) != 0 // Go asks for the right to set the size even to read
	read := a[5]&(rightRead|rightReaddir) != 0 || !write
	n := p.node
	switch {
	case n == nil && flags&openCreate == 0:
		return eNoent
	case n == nil && flags&openDirectory != 0:
		return eInval
	case n == nil:
		if n, e = s.create(p, typeRegular); e != 0 {
			return e
		}
	case flags&openCreate != 0 && flags&openExclusive != 0:
		return eExist
	case n.kind == typeSymlink:
		return eLoop
	case flags&openDirectory != 0 && n.kind != typeDirectory:
		return eNotdir
	case n.kind == typeDirectory && (flags&(openCreate|openTruncate) != 0 || write && flags&openDirectory == 0):
		return eIsdir
	case n.kind == typeRegular && !n.area.writable && (write || flags&openTruncate != 0):
		return eRofs
	}
	d := &descriptor{node: n, flags: uint16(fdflags), rights: rightsDirectory}
	if n.kind == typeRegular {
		d.file, d.read, d.write, d.rights = n.content, read, write, rightsFile
		if !write {
			d.rights = rightsStdin
		} else if !read {
			d.rights &^= rightRead
		}
		if flags&openTruncate != 0 {
			s.touch(n)
			if e := s.resize(n.content, n.area, 0); e != 0 {
				return e
			}
		}
	}
	fd, e := s.install(d)
	if e != 0 {
		return e
	}
	if d.file != nil {
		d.file.open++
	}
	m.putU32(uint32(a[8]), fd)
	return 0
}

func pathReadlink(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[1], a[2], false)
	switch {
	case e != 0:
		return e
	case p.node == nil:
		return eNoent
	case p.node.kind != typeSymlink:
		return eInval
	}
	n := copy(m.slice(uint32(a[3]), uint32(a[4])), p.node.target)
	m.putU32(uint32(a[5]), uint32(n))
	return 0
}

func pathRemoveDirectory(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[1], a[2], false)
	if e != 0 {
		return e
	}
	if e := p.writable(); e != 0 {
		return e
	}
	switch {
	case p.node == nil:
		return eNoent
	case p.node.kind != typeDirectory:
		return eNotdir
	case len(p.node.names) > 0:
		return eNotempty
	}
	s.detach(p.dir, p.name)
	return 0
}

func pathUnlinkFile(s *System, m *memory, a []uint64) errno {
	p, e := s.at(m, a[0], a[1], a[2], false)
	if e != 0 {
		return e
	}
	if e := p.writable(); e != 0 {
		return e
	}
	switch {
	case p.node == nil:
		return eNoent
	case p.node.kind == typeDirectory:
		return eIsdir
	}
	s.detach(p.dir, p.name)
	return 0
}

// pathRename moves a name. Between /out, /tmp and /state it moves links and files that have one name; a directory stays within
// its area.
func pathRename(s *System, m *memory, a []uint64) errno {
	old, e := s.at(m, a[0], a[1], a[2], false)
	if e != 0 {
		return e
	}
	p, e := s.at(m, a[3], a[4], a[5], false)
	if e != 0 {
		return e
	}
	if e := old.writable(); e != 0 {
		return e
	}
	if e := p.writable(); e != 0 {
		return e
	}
	n := old.node
	switch {
	case n == nil:
		return eNoent
	case p.node == n:
		return 0
	case p.slash && n.kind != typeDirectory:
		return eNotdir
	}
	if n.kind == typeDirectory {
		for up := p.dir; up != nil; up = up.parent {
			if up == n {
				return eInval
			}
		}
	}
	if n.area != p.dir.area && (n.kind == typeDirectory || n.links > 1) {
		return eXdev
	}
	if p.node != nil {
		if e := replaceable(n, p.node); e != 0 {
			return e
		}
		s.detach(p.dir, p.name)
	}
	return s.move(n, old, p)
}

// replaceable reports why old cannot take the place of a node that is there.
func replaceable(old, there *node) errno {
	switch {
	case there.kind == typeDirectory && old.kind != typeDirectory:
		return eIsdir
	case there.kind != typeDirectory && old.kind == typeDirectory:
		return eNotdir
	case len(there.names) > 0:
		return eNotempty
	}
	return 0
}

func (s *System) move(n *node, old, p place) errno {
	n.links++ // it must not be discarded between its two names
	s.detach(old.dir, old.name)
	s.attach(p.dir, p.name, n)
	n.links--
	if n.area == p.dir.area {
		return 0
	}
	size := int64(0)
	if n.content != nil {
		size = n.content.size
	}
	n.area.used -= size
	n.area = p.dir.area
	return s.charge(n.area, size)
}

func pathSymlink(s *System, m *memory, a []uint64) errno {
	if uint32(a[1]) > MaxTarget {
		return eNametoolong
	}
	target, e := m.path(a[0], a[1])
	if e != 0 {
		return e
	}
	if target == "" {
		return eNoent
	}
	p, e := s.at(m, a[2], a[3], a[4], false)
	if e != 0 {
		return e
	}
	if p.node != nil {
		return eExist
	}
	n, e := s.create(p, typeSymlink)
	if e != 0 {
		return e
	}
	n.target = target
	return 0
}
