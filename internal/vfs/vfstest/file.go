package vfstest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// file is an open file of a Disk.
type file struct {
	d      *Disk
	inode  *inode
	path   string
	flag   int
	offset int64
	lock   bool
	closed bool
}

// usable is an error when nothing can be done with f any more. The disk's lock is held.
func (f *file) usable(op string) error {
	switch {
	case f.closed:
		return fault(op, f.path, fs.ErrClosed)
	case f.d.off:
		return fault(op, f.path, ErrOff)
	}
	return nil
}

func (f *file) Name() string { return f.path }

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.offset)
	f.offset += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(p []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.usable("read"); err != nil {
		return 0, err
	}
	return bytes.NewReader(f.inode.data).ReadAt(p, at)
}

// Write writes what there is room for.
func (f *file) Write(p []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.usable("write"); err != nil {
		return 0, err
	}
	at := f.offset
	if f.flag&os.O_APPEND != 0 {
		at = int64(len(f.inode.data))
	}
	whole := len(p)
	for len(p) > 0 && !f.grow(at+int64(len(p))) {
		p = p[:(len(p)-1)/block*block]
	}
	if len(p) > 0 {
		w := write{at, bytes.Clone(p)}
		f.inode.data = w.apply(f.inode.data)
		f.inode.dirty = append(f.inode.dirty, w)
		f.inode.modified = time.Now()
	}
	f.offset = at + int64(len(p))
	if len(p) < whole {
		return len(p), fault("write", f.path, syscall.ENOSPC)
	}
	return len(p), nil
}

// grow charges the room for a size.
func (f *file) grow(size int64) bool {
	if size <= int64(len(f.inode.data)) {
		return true
	}
	old := f.inode.cost()
	need := max(1, (size+block-1)/block) * block
	return f.d.charge(old, need)
}

func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.closed {
		return fault("close", f.path, fs.ErrClosed)
	}
	f.closed = true
	f.inode.open--
	f.d.forget(f.inode)
	if f.lock {
		delete(f.d.locked, f.path)
	}
	return nil
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.usable("sync"); err != nil {
		return err
	}
	if f.inode.dir {
		f.d.syncNames(f.path)
	} else {
		f.inode.sync()
	}
	return nil
}

// drop forgets what was to be written, as a system does after a flush that failed: readers still see it, and the next Sync
// has nothing to do.
func (f *file) drop() {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.inode.dirty = nil
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.usable("truncate"); err != nil {
		return err
	}
	f.truncate(size)
	return nil
}

func (f *file) truncate(size int64) {
	old := f.inode.cost()
	f.inode.data = slices.Clone(resize(f.inode.data, size))
	f.inode.dirty = append(f.inode.dirty, write{at: size})
	f.d.charge(old, f.inode.cost())
}

func (f *file) Stat() (fs.FileInfo, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.usable("stat"); err != nil {
		return nil, err
	}
	return f.inode.info(f.path), nil
}

// info is a snapshot of an inode.
type info struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
}

func (n *inode) info(path string) info {
	mode := n.perm
	if n.dir {
		mode |= fs.ModeDir
	}
	return info{filepath.Base(path), int64(len(n.data)), mode, n.modified}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.modified }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
