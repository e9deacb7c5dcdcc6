package vfstest

import (
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/compute-mesh/mesh/internal/vfs"
)

// Faults is a file system of which operations fail on order. The zero value with an FS lets everything pass.
type Faults struct {
	vfs.FS

	mu   sync.Mutex
	ops  int
	hook func(n int, op Op, path string) error
}

// Op names an operation, as errors do.
type Op string

// The operations.
const (
	OpOpen     Op = "open"
	OpMkdir    Op = "mkdir"
	OpReadDir  Op = "readdir"
	OpRename   Op = "rename" // the path is the new one
	OpRemove   Op = "remove"
	OpLink     Op = "link"
	OpSyncAll  Op = "syncall"
	OpLock     Op = "lock"
	OpFree     Op = "free"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpClose    Op = "close"
)

// Hook has f called before every operation, with the number of those before it; the operation fails with f's error. It is
// called by many goroutines. Nil ends it.
func (f *Faults) Hook(hook func(n int, op Op, path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// FailAt makes the operation fail that has k before it and, where lasting, every one after it.
func (f *Faults) FailAt(k int, cause error, lasting bool) {
	f.Hook(func(n int, op Op, path string) error {
		if n == k || lasting && n > k {
			return fmt.Errorf("%s %s: %w", op, path, cause)
		}
		return nil
	})
}

// FailWrites makes everything fail that needs room; what frees some does not.
func (f *Faults) FailWrites(cause error) {
	f.Hook(func(_ int, op Op, path string) error {
		switch op {
		case OpWrite, OpMkdir, OpLink:
			return fmt.Errorf("%s %s: %w", op, path, cause)
		}
		return nil
	})
}

// Ops is the number of operations so far, failed ones included.
func (f *Faults) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

func (f *Faults) step(op Op, path string) error {
	f.mu.Lock()
	n, hook := f.ops, f.hook
	f.ops++
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(n, op, path)
}

// Each calls run for k = 0, 1, 2 ... with an empty disk of which operation k fails, until run makes fewer operations than
// that. Run makes no test of its own fail for the fault's sake; its errors should name k.
func Each(t *testing.T, cause error, lasting bool, run func(t *testing.T, k int, d *Disk, f *Faults)) {
	t.Helper()
	for k := 0; ; k++ {
		d := New()
		f := &Faults{FS: d}
		f.FailAt(k, cause, lasting)
		run(t, k, d, f)
		if f.Ops() <= k {
			if k == 0 {
				t.Fatal("no operation was made")
			}
			return
		}
	}
}

func (f *Faults) OpenFile(path string, flag int, perm fs.FileMode) (vfs.File, error) {
	if err := f.step(OpOpen, path); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.OpenFile(path, flag, perm))
}

func (f *Faults) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

func (f *Faults) MkdirAll(path string, perm fs.FileMode) error {
	if err := f.step(OpMkdir, path); err != nil {
		return err
	}
	return f.FS.MkdirAll(path, perm)
}

func (f *Faults) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := f.step(OpReadDir, path); err != nil {
		return nil, err
	}
	return f.FS.ReadDir(path)
}

func (f *Faults) Rename(from, to string) error {
	if err := f.step(OpRename, to); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *Faults) Remove(path string) error {
	if err := f.step(OpRemove, path); err != nil {
		return err
	}
	return f.FS.Remove(path)
}

func (f *Faults) Link(from, to string) error {
	if err := f.step(OpLink, to); err != nil {
		return err
	}
	return f.FS.Link(from, to)
}

func (f *Faults) SyncAll(dir string) (bool, error) {
	if err := f.step(OpSyncAll, dir); err != nil {
		return true, err
	}
	return f.FS.SyncAll(dir)
}

func (f *Faults) Lock(path string) (vfs.File, error) {
	if err := f.step(OpLock, path); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.Lock(path))
}

func (f *Faults) Free(dir string) (int64, error) {
	if err := f.step(OpFree, dir); err != nil {
		return 0, err
	}
	return f.FS.Free(dir)
}

type faultyFile struct {
	vfs.File
	f *Faults
}

func (f *faultyFile) Read(p []byte) (int, error) {
	if err := f.f.step(OpRead, f.Name()); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *faultyFile) ReadAt(p []byte, at int64) (int, error) {
	if err := f.f.step(OpRead, f.Name()); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, at)
}

// Write writes half of p when it fails, as a full disk does.
func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.f.step(OpWrite, f.Name()); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

// Sync loses what was to be written when it fails.
func (f *faultyFile) Sync() error {
	if err := f.f.step(OpSync, f.Name()); err != nil {
		if d, ok := f.File.(*file); ok {
			d.drop()
		}
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.f.step(OpTruncate, f.Name()); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Close closes the file also when it fails.
func (f *faultyFile) Close() error {
	err := f.f.step(OpClose, f.Name())
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}
