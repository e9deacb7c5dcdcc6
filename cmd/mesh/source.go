package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// origin is where an item of an import comes from: exactly one of path, cid and reader.
type origin struct {
	name   string // that the job sees
	path   string
	cid    string
	reader io.Reader // standard input
	size   int64     // when it was found; -1: unknown
}

// label names o for people.
func (o origin) label() string {
	switch {
	case o.reader != nil:
		return "standard input"
	case o.path != "":
		return o.path
	}
	return o.cid
}

// files is an api.Source of origins. It opens one file at a time, with the user's own
// rights, and fails where a file is not what it was when it was opened.
type files struct {
	left []origin
	read func(n int) // told of every read; may be nil

	open  *os.File
	stat  fs.FileInfo
	r     io.Reader
	taken int64
}

var _ api.Source = (*files)(nil)

func (f *files) Next() (api.Item, error) {
	f.close()
	if len(f.left) == 0 {
		return api.Item{}, io.EOF
	}
	o := f.left[0]
	f.left = f.left[1:]
	item := api.Item{Name: o.name, Size: -1}
	switch {
	case o.cid != "":
		item.CID, item.Size = o.cid, 0
	case o.reader != nil:
		f.r = o.reader
	default:
		file, err := os.Open(o.path)
		if err != nil {
			return item, unreadable(err)
		}
		stat, err := file.Stat()
		if err != nil {
			file.Close()
			return item, unreadable(err)
		}
		f.open, f.r = file, file
		if stat.Mode().IsRegular() {
			f.stat, item.Size = stat, stat.Size()
		}
	}
	return item, nil
}

func (f *files) Read(p []byte) (int, error) {
	if f.r == nil {
		return 0, io.EOF
	}
	n, err := f.r.Read(p)
	f.taken += int64(n)
	if f.read != nil {
		f.read(n)
	}
	if f.stat != nil {
		if changed := f.changed(err == io.EOF); changed != nil {
			return 0, changed
		}
	}
	if err != nil && err != io.EOF {
		return n, unreadable(err)
	}
	return n, err
}

// changed tells whether the file that is read is another than the one that was opened.
func (f *files) changed(ended bool) error {
	change := func(format string, args ...any) error {
		return api.Errorf(api.KindConflict, "%s changed while being imported: %s", f.open.Name(), fmt.Sprintf(format, args...)).
			WithAdvice("nothing was submitted; try again when nobody writes to it")
	}
	if f.taken > f.stat.Size() {
		return change("it has grown from %d bytes", f.stat.Size())
	}
	if !ended {
		return nil
	}
	if f.taken < f.stat.Size() {
		return change("it had %d bytes, %d could be read", f.stat.Size(), f.taken)
	}
	now, err := f.open.Stat()
	if err != nil {
		return unreadable(err)
	}
	if !now.ModTime().Equal(f.stat.ModTime()) || now.Size() != f.stat.Size() {
		return change("it was written to at %s", now.ModTime().Format("15:04:05.000"))
	}
	return nil
}

func (f *files) close() {
	if f.open != nil {
		f.open.Close()
	}
	f.open, f.stat, f.r, f.taken = nil, nil, nil, 0
}

// total is the bytes that will be read, or -1 where that is unknown.
func (f *files) total() int64 {
	var sum int64
	for _, o := range f.left {
		if o.size < 0 {
			return -1
		}
		sum += o.size
	}
	return sum
}

// unreadable says what to do about a file that can't be read.
func unreadable(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return usage("%s: there is no such file", p.Path)
		case errors.Is(err, fs.ErrPermission):
			return api.Errorf(api.KindForbidden, "%s: no permission to read it", p.Path).WithAdvice("change its mode, or leave it out")
		}
	}
	return err
}

// find makes an origin of what a flag names: a file or, where there is none of that
// name, a CID.
func find(arg string) (origin, error) {
	stat, err := os.Stat(arg)
	if err != nil {
		if c, bad := cid.Decode(arg); bad == nil && errors.Is(err, fs.ErrNotExist) {
			return origin{name: c.String(), cid: c.String()}, nil
		}
		return origin{}, unreadable(err)
	}
	if stat.IsDir() {
		return origin{}, usage("%s is a directory, a file is wanted", arg)
	}
	o := origin{name: path.Base(filepath.ToSlash(filepath.Clean(arg))), path: arg, size: -1}
	if stat.Mode().IsRegular() {
		o.size = stat.Size()
	}
	return o, nil
}

// maxNamed bounds how many names a note lists.
const maxNamed = 3

// listed is a list of names for people.
func listed(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

// walk lists the regular files of a directory in byte order of their paths relative to
// it, of those that the patterns choose (none: all). skipped are the paths of what is
// neither a regular file nor a directory.
func walk(dir string, include []string) (found []origin, skipped []string, err error) {
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, nil, unreadable(err)
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return unreadable(err)
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !included(name, include) {
			return nil
		}
		if !d.Type().IsRegular() {
			skipped = append(skipped, p)
			return nil
		}
		if err := protocol.ValidName(name); err != nil {
			return badName(p).WithAdvice("rename it, or leave it out with --include")
		}
		info, err := d.Info()
		if err != nil {
			return unreadable(err)
		}
		found = append(found, origin{name: name, path: p, size: info.Size()})
		return nil
	})
	slices.SortFunc(found, func(a, b origin) int { return strings.Compare(a.name, b.name) })
	return found, skipped, err
}

// included tells whether a pattern matches: one with a slash the whole path, any other
// the last element, at any depth.
func included(name string, patterns []string) bool {
	for _, p := range patterns {
		subject := path.Base(name)
		if strings.Contains(p, "/") {
			subject = name
		}
		if ok, _ := path.Match(p, subject); ok {
			return true
		}
	}
	return len(patterns) == 0
}
