package wasi

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// node is a directory, a regular file or a symbolic link. Inode numbers count up in order of creation.
type node struct {
	kind    uint8
	inode   uint64
	links   uint64 // names it has; a removed directory has none
	area    *area
	parent  *node            // of a directory; nil for the root
	names   map[string]*node // of a directory
	target  string           // of a symbolic link
	content *content         // of a regular file

	atim, mtim, ctim uint64
}

// area is a part of the tree with rules of its own: the root with /in, /out, /tmp, or /state.
type area struct {
	writable bool
	device   uint64
	used     int64  // bytes of file contents
	revision uint64 // counts changes
}

// plant makes the tree that a program starts with.
func (s *System) plant() error {
	fixed := &area{device: 1}
	s.outArea = &area{writable: true, device: 2}
	s.tmpArea = &area{writable: true, device: 3}
	s.stateArea = &area{writable: true, device: 4}
	s.root = s.newNode(typeDirectory, fixed)
	s.root.links = 1
	in := s.attach(s.root, "in", s.newNode(typeDirectory, fixed))
	s.out = s.attach(s.root, "out", s.newNode(typeDirectory, s.outArea))
	s.tmp = s.attach(s.root, "tmp", s.newNode(typeDirectory, s.tmpArea))
	s.state = s.attach(s.root, "state", s.newNode(typeDirectory, s.stateArea))
	for _, f := range s.cfg.In {
		if err := ValidName(f.Name); err != nil {
			return fmt.Errorf("wasi: file for /in: %w", err)
		}
		if err := s.plantFile(in, f); err != nil {
			return err
		}
	}
	return nil
}

func (s *System) plantFile(dir *node, f File) error {
	parts := strings.Split(f.Name, "/")
	for _, p := range parts[:len(parts)-1] {
		next := dir.names[p]
		if next == nil {
			next = s.attach(dir, p, s.newNode(typeDirectory, dir.area))
		}
		if next.kind != typeDirectory {
			return fmt.Errorf("wasi: file for /in: %q: %q is a file as well as a directory", f.Name, p)
		}
		dir = next
	}
	base := parts[len(parts)-1]
	if dir.names[base] != nil {
		return fmt.Errorf("wasi: file for /in: %q is given twice, or is a directory as well", f.Name)
	}
	if s.nodes >= MaxNodes {
		return fmt.Errorf("wasi: file for /in: more than %d files", MaxNodes)
	}
	n := s.attach(dir, base, s.newNode(typeRegular, dir.area))
	n.content = &content{fixed: &fixed{paths: f.Paths}}
	return nil
}

// ValidName reports what is wrong with a path under /in or /out: it must be relative, clean, valid UTF-8 and within
// MaxName and MaxPath, without a NUL.
func ValidName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("name is empty")
	case len(name) > MaxPath:
		return fmt.Errorf("name %.40q... is longer than %d bytes", name, MaxPath)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return fmt.Errorf("name %q is not UTF-8 without NUL", name)
	}
	for p := range strings.SplitSeq(name, "/") {
		if p == "" || p == "." || p == ".." {
			return fmt.Errorf("name %q must be relative, without empty parts, %q and %q", name, ".", "..")
		}
		if len(p) > MaxName {
			return fmt.Errorf("name %.40q... has a part longer than %d bytes", name, MaxName)
		}
	}
	return nil
}

func (s *System) newNode(kind uint8, a *area) *node {
	s.lastInode++
	now := s.stamp()
	n := &node{kind: kind, inode: s.lastInode, area: a, atim: now, mtim: now, ctim: now}
	if kind == typeDirectory {
		n.names = map[string]*node{}
	}
	return n
}

// attach gives n a name in dir.
func (s *System) attach(dir *node, name string, n *node) *node {
	dir.names[name] = n
	n.links++
	s.nodes++
	if n.kind == typeDirectory {
		n.parent = dir
	}
	s.touch(dir)
	return n
}

// detach takes a name away. A file without names goes when its last descriptor is closed.
func (s *System) detach(dir *node, name string) {
	n := dir.names[name]
	delete(dir.names, name)
	n.links--
	s.nodes--
	s.touch(dir)
	if n.links == 0 && n.content != nil && n.content.open == 0 {
		s.discard(n)
	}
}

func (s *System) touch(n *node) {
	n.mtim = s.stamp()
	n.ctim = n.mtim
	n.area.revision++
}

// sorted is the names in a directory in byte order.
func (n *node) sorted() []string {
	names := make([]string, 0, len(n.names))
	for name := range n.names {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// place is where a path leads: a name in a directory, with the node of that name if there is one; or, for ".", ".." and
// the root, a directory without a name.
type place struct {
	dir  *node
	name string
	node *node
	// slash is set when the path ended in one, so that only a directory will do.
	slash bool
}

// walk resolves a path from a directory. A last symbolic link is followed if follow is set. Paths are relative; only the
// target of a symbolic link may start at the root. The parent of the root is out of reach.
func (s *System) walk(from *node, path string, follow bool) (place, errno) {
	if path == "" {
		return place{}, eNoent
	}
	if path[0] == '/' {
		return place{}, eNotcapable
	}
	links := 0
	cur, rest := from, path
	for {
		rest = strings.TrimLeft(rest, "/")
		if cur.kind != typeDirectory {
			return place{}, eNotdir
		}
		if rest == "" {
			return place{node: cur}, 0
		}
		name, tail, slash := strings.Cut(rest, "/")
		last := strings.Trim(tail, "/") == ""
		switch {
		case name == ".":
			rest = tail
			continue
		case name == "..":
			if cur.parent == nil {
				return place{}, eNotcapable
			}
			cur, rest = cur.parent, tail
			continue
		case len(name) > MaxName:
			return place{}, eNametoolong
		}
		next := cur.names[name]
		switch {
		case next == nil && last:
			return place{dir: cur, name: name, slash: slash}, 0
		case next == nil:
			return place{}, eNoent
		case next.kind == typeSymlink && (!last || follow || slash):
			if links++; links > MaxLinks {
				return place{}, eLoop
			}
			rest = next.target
			if slash {
				rest += "/" + tail
			}
			if strings.HasPrefix(next.target, "/") {
				cur = s.root
			}
		case last && slash && next.kind != typeDirectory:
			return place{}, eNotdir
		case last:
			return place{dir: cur, name: name, node: next, slash: slash}, 0
		default:
			cur, rest = next, tail
		}
	}
}

// writable reports why names in a directory cannot be changed.
func (p place) writable() errno {
	switch {
	case p.dir == nil:
		return eInval
	case !p.dir.area.writable:
		return eRofs
	case p.dir.links == 0:
		return eNoent // the directory was removed
	}
	return 0
}

// create makes a node of the given kind at p, which must be free.
func (s *System) create(p place, kind uint8) (*node, errno) {
	if e := p.writable(); e != 0 {
		return nil, e
	}
	if p.slash && kind != typeDirectory {
		return nil, eNoent
	}
	if s.nodes >= MaxNodes {
		return nil, eNospc
	}
	n := s.newNode(kind, p.dir.area)
	if kind == typeRegular {
		n.content = &content{}
	}
	return s.attach(p.dir, p.name, n), 0
}

// eachFile calls f with the regular files under dir in byte order of their paths. A file with two names comes twice.
func (s *System) eachFile(dir *node, f func(name string, n *node) error) error {
	var names []string
	files := map[string]*node{}
	var collect func(dir *node, prefix string)
	collect = func(dir *node, prefix string) {
		for name, n := range dir.names {
			switch n.kind {
			case typeDirectory:
				collect(n, prefix+name+"/")
			case typeRegular:
				names = append(names, prefix+name)
				files[prefix+name] = n
			}
		}
	}
	collect(dir, "")
	sort.Strings(names)
	for _, name := range names {
		if err := f(name, files[name]); err != nil {
			return err
		}
	}
	return nil
}
