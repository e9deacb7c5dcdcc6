// Package vfstest has file systems for tests of durability: a Disk in memory that can be cut from its power, filled and
// damaged, and Faults, which make any one operation of a file system fail. No program is built with it.
package vfstest

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/compute-mesh/mesh/internal/vfs"
)

// block is what a file's size is rounded up to when it is charged; an empty file takes one.
const block = 4 << 10

// ErrOff: the disk has lost its power.
var ErrOff = errors.New("the disk is off")

// Disk is a file system in memory. What was written is durable after the file's Sync, names after their directory's; of
// everything else Crash keeps an arbitrary part, as POSIX allows. Paths are absolute; the root is there.
type Disk struct {
	mu     sync.Mutex
	names  map[string]*inode // as processes see them
	kept   map[string]*inode // those that are durable
	todo   []change          // what names has and kept has not, in order
	locked map[string]bool
	size   int64 // capacity, bytes; 0: no limit
	used   int64
	peak   int64
	off    bool
}

var _ vfs.FS = (*Disk)(nil)

// inode is a file or a directory.
type inode struct {
	dir      bool
	perm     fs.FileMode
	data     []byte  // as processes see it
	durable  []byte  // what a Sync has written
	dirty    []write // what data has and durable has not, in order
	links    int
	open     int
	modified time.Time
}

// write is a change of a file: bytes at an offset or, where data is nil, a new size.
type write struct {
	at   int64
	data []byte
}

// change is one of names, durable with the Sync of the directory.
type change struct {
	dir    string
	set    string
	inode  *inode // what set names from now on; nil: nothing
	remove string // renamed to set
}

// New is an empty disk without limit.
func New() *Disk {
	root := &inode{dir: true, perm: 0o700, links: 1}
	return &Disk{names: map[string]*inode{"/": root}, kept: map[string]*inode{"/": root}, locked: map[string]bool{}}
}

// SetSize limits what files may take, each rounded up to 4 KiB; 0: no limit.
func (d *Disk) SetSize(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = bytes
}

// Used is what files take now, Peak the most that they ever took.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Peak is described at Used.
func (d *Disk) Peak() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peak
}

// Damage flips a bit of a file, as a disk that rots does.
func (d *Disk) Damage(path string, at int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[path]
	n.data[at] ^= 1
	n.durable[at] ^= 1
}

// Crash cuts the power: every later operation on d fails. It returns the disk as it is found afterwards: of each name that
// was not durable, and of each write that was not, drawn from the seed, all, nothing, or some sectors.
func (d *Disk) Crash(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	rng := rand.New(rand.NewPCG(seed, 0))
	names := maps.Clone(d.kept)
	for _, c := range d.todo {
		if rng.IntN(2) == 0 {
			c.apply(names)
		}
	}
	after := New()
	after.size = d.size
	copies := map[*inode]*inode{}
	for _, path := range slices.Sorted(maps.Keys(names)) { // parents first
		if path != "/" && after.names[filepath.Dir(path)] == nil {
			continue
		}
		old := names[path]
		n := copies[old]
		if n == nil {
			data := old.crash(rng)
			n = &inode{dir: old.dir, perm: old.perm, modified: old.modified, data: data, durable: slices.Clone(data)}
			copies[old] = n
			after.charge(0, n.cost())
		}
		n.links++
		after.names[path], after.kept[path] = n, n
	}
	return after
}

// crash is what is left of a file: what was durable, a number of the writes after it, and of the next one some sectors. One
// time in four each write is drawn by itself.
func (n *inode) crash(rng *rand.Rand) []byte {
	data := slices.Clone(n.durable)
	if len(n.dirty) == 0 {
		return data
	}
	if rng.IntN(4) == 0 {
		for _, w := range n.dirty {
			if rng.IntN(2) == 0 {
				data = w.apply(data)
			}
		}
		return data
	}
	whole := rng.IntN(len(n.dirty) + 1)
	for _, w := range n.dirty[:whole] {
		data = w.apply(data)
	}
	if whole < len(n.dirty) && n.dirty[whole].data != nil {
		data = n.dirty[whole].torn(data, rng)
	}
	return data
}

const sector = 512

// torn applies a part of a write: a prefix, or some of its sectors.
func (w write) torn(data []byte, rng *rand.Rand) []byte {
	if rng.IntN(2) == 0 {
		return write{w.at, w.data[:rng.IntN(len(w.data)+1)]}.apply(data)
	}
	for at := 0; at < len(w.data); at += sector {
		if rng.IntN(2) == 0 {
			data = write{w.at + int64(at), w.data[at:min(at+sector, len(w.data))]}.apply(data)
		}
	}
	return data
}

func (w write) apply(data []byte) []byte {
	if w.data == nil {
		return resize(data, w.at)
	}
	if end := w.at + int64(len(w.data)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[w.at:], w.data)
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func (n *inode) cost() int64 {
	if n.dir {
		return 0
	}
	return max(1, (int64(len(n.data))+block-1)/block) * block
}

// charge changes what is used from one cost of an inode to another; false where there is no room.
func (d *Disk) charge(from, to int64) bool {
	if to > from && d.size > 0 && d.used+to-from > d.size {
		return false
	}
	d.used += to - from
	d.peak = max(d.peak, d.used)
	return true
}

// apply makes the change in a table of names.
func (c change) apply(names map[string]*inode) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.inode == nil {
		delete(names, c.set)
	} else {
		names[c.set] = c.inode
	}
}

// do changes a name for everybody, to be durable later.
func (d *Disk) do(set string, n *inode, remove string) {
	c := change{dir: filepath.Dir(set), set: set, inode: n, remove: remove}
	old := d.names[set]
	c.apply(d.names)
	d.todo = append(d.todo, c)
	if n != nil && remove == "" {
		n.links++
	}
	if old != nil && old != n {
		old.links--
		d.forget(old)
	}
}

// forget frees what an inode takes that nobody can reach any more.
func (d *Disk) forget(n *inode) {
	if n.links == 0 && n.open == 0 {
		d.charge(n.cost(), 0)
	}
}

// syncNames makes the names in a directory durable; in every one where dir is empty.
func (d *Disk) syncNames(dir string) {
	d.todo = slices.DeleteFunc(d.todo, func(c change) bool {
		if dir != "" && c.dir != dir {
			return false
		}
		c.apply(d.kept)
		return true
	})
}

func (n *inode) sync() {
	for _, w := range n.dirty {
		n.durable = w.apply(n.durable)
	}
	n.dirty = nil
}

func fault(op, path string, err error) error { return &fs.PathError{Op: op, Path: path, Err: err} }

// find is the inode of a path.
func (d *Disk) find(op, path string) (*inode, error) {
	if d.off {
		return nil, fault(op, path, ErrOff)
	}
	n := d.names[path]
	if n == nil {
		return nil, fault(op, path, fs.ErrNotExist)
	}
	return n, nil
}

// parent makes sure that a name can be made.
func (d *Disk) parent(op, path string) error {
	n, err := d.find(op, filepath.Dir(path))
	if err == nil && !n.dir {
		err = fault(op, path, syscall.ENOTDIR)
	}
	return err
}

// OpenFile implements vfs.FS.
func (d *Disk) OpenFile(path string, flag int, perm fs.FileMode) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openFile(path, flag, perm)
}

func (d *Disk) openFile(path string, flag int, perm fs.FileMode) (*file, error) {
	n, err := d.find("open", path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
		if err := d.parent("open", path); err != nil {
			return nil, err
		}
		n = &inode{perm: perm, modified: time.Now()}
		if !d.charge(0, n.cost()) {
			return nil, fault("open", path, syscall.ENOSPC)
		}
		d.do(path, n, "")
	case err != nil:
		return nil, err
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, fault("open", path, fs.ErrExist)
	}
	f := &file{d: d, inode: n, path: path, flag: flag}
	if flag&os.O_TRUNC != 0 {
		f.truncate(0)
	}
	n.open++
	return f, nil
}

// MkdirAll implements vfs.FS.
func (d *Disk) MkdirAll(path string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mkdirAll(path, perm)
}

func (d *Disk) mkdirAll(path string, perm fs.FileMode) error {
	n, err := d.find("mkdir", path)
	if err == nil && !n.dir {
		return fault("mkdir", path, syscall.ENOTDIR)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.mkdirAll(filepath.Dir(path), perm); err != nil {
		return err
	}
	d.do(path, &inode{dir: true, perm: perm, modified: time.Now()}, "")
	return nil
}

// ReadDir implements vfs.FS.
func (d *Disk) ReadDir(path string) ([]fs.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find("open", path); err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if name != "/" && filepath.Dir(name) == path {
			list = append(list, fs.FileInfoToDirEntry(d.names[name].info(name)))
		}
	}
	return list, nil
}

// Rename implements vfs.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find("rename", from)
	if err == nil {
		err = d.parent("rename", to)
	}
	if err == nil && n.dir {
		err = fault("rename", from, syscall.EISDIR) // nobody here renames one
	}
	if err != nil || from == to {
		return err
	}
	d.do(to, n, from)
	return nil
}

// Remove implements vfs.FS.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find("remove", path)
	if err != nil {
		return err
	}
	for name := range d.names {
		if n.dir && filepath.Dir(name) == path {
			return fault("remove", path, syscall.ENOTEMPTY)
		}
	}
	d.do(path, nil, "")
	return nil
}

// Link implements vfs.FS.
func (d *Disk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find("link", from)
	if err == nil {
		err = d.parent("link", to)
	}
	if err == nil && d.names[to] != nil {
		err = fault("link", to, fs.ErrExist)
	}
	if err != nil {
		return err
	}
	d.do(to, n, "")
	return nil
}

// SyncAll implements vfs.FS.
func (d *Disk) SyncAll(dir string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find("syncfs", dir); err != nil {
		return true, err
	}
	for _, n := range d.names {
		n.sync()
	}
	d.syncNames("")
	return true, nil
}

// Lock implements vfs.FS.
func (d *Disk) Lock(path string) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked[path] {
		return nil, fault("lock", path, vfs.ErrLocked)
	}
	f, err := d.openFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	f.lock = true
	d.locked[path] = true
	return f, nil
}

// Free implements vfs.FS. A disk without limit has 1 TiB.
func (d *Disk) Free(dir string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find("statfs", dir); err != nil {
		return 0, err
	}
	if d.size == 0 {
		return 1 << 40, nil
	}
	return max(d.size-d.used, 0), nil
}
