// Package vfs is the file system as those who write durable state see it: few enough operations that a test can make any
// one of them fail, tear a write, fill the disk or cut the power between any two. It promises what POSIX does and no more:
// a write is durable after the file's Sync, a name after the Sync of its directory, and a Sync that has failed says nothing
// about what a second one would do.
//
// node's journal and home and chunkstore's chunks go through it. What a library writes by itself does not: the pin sets
// (bbolt) have tests of their own. Nor does what is rebuilt after any loss, or is a
// hint: compiled programs, scratch files of tasks, logs, peers met, which tasks ran.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is a file system. Paths are absolute or relative to the working directory. Errors wrap fs.ErrNotExist, fs.ErrExist and
// the system's numbers, as those of package os do.
type FS interface {
	// OpenFile opens a file, or a directory to Sync it; flags are those of os.OpenFile.
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	// MkdirAll makes a directory and its parents where they are missing.
	MkdirAll(path string, perm fs.FileMode) error
	// ReadDir lists a directory in byte order of the names.
	ReadDir(path string) ([]fs.DirEntry, error)
	// Rename gives a file the place of another, at once as seen by every process; durable after the directory's Sync.
	Rename(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(path string) error
	// Link gives a file a second name.
	Link(from, to string) error
	// SyncAll makes everything on the file system of dir durable; supported is false where the system has no such call.
	SyncAll(dir string) (supported bool, err error)
	// Lock makes the file where it is missing and opens it, locked for this process; ErrLocked where another has it. The lock ends
	// with the file's Close, or the process.
	Lock(path string) (File, error)
	// Free is the number of bytes that this user may still write on the file system of dir.
	Free(dir string) (int64, error)
}

// File is an open file. *os.File is one.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	// Sync makes the contents durable; of a directory, its names. After an error the system may have forgotten what it was to write:
	// only what is written anew can be made durable.
	Sync() error
	Truncate(size int64) error
}

// ErrLocked: another process has the lock.
var ErrLocked = errors.New("locked by another process")

// IsFull tells whether an error says that there is no room on the disk, or for this user: it may pass by itself.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// OS is the file system of the operating system.
type OS struct{}

var _ FS = OS{}

func (OS) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

func (OS) MkdirAll(path string, perm fs.FileMode) error { return os.MkdirAll(path, perm) }
func (OS) ReadDir(path string) ([]fs.DirEntry, error)   { return os.ReadDir(path) }
func (OS) Rename(from, to string) error                 { return os.Rename(from, to) }
func (OS) Remove(path string) error                     { return os.Remove(path) }
func (OS) Link(from, to string) error                   { return os.Link(from, to) }

func (OS) SyncAll(dir string) (bool, error) { return syncFileSystem(dir) }

func (OS) Lock(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

func (OS) Free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free disk of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// ReadFile reads all of a file.
func ReadFile(fsys FS, path string) ([]byte, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	var data []byte
	if info, statErr := f.Stat(); statErr == nil {
		data = make([]byte, info.Size())
		_, err = io.ReadFull(f, data)
	} else {
		err = statErr
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// Sync makes the contents of a file durable, or the names in a directory.
func Sync(fsys FS, path string) error {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Replace puts data in the place of a file, durably: after a crash either the old or the new content is there. It writes to
// path.new on the way, which may be left by a crash, and is written over.
func Replace(fsys FS, path string, data []byte, perm fs.FileMode) error {
	f, err := WriteNew(fsys, path, data, perm)
	if err != nil {
		return err
	}
	return f.Close()
}

// WriteNew is Replace that returns the new file, open for appending.
func WriteNew(fsys FS, path string, data []byte, perm fs.FileMode) (File, error) {
	temp := path + ".new"
	f, err := fsys.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, perm)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(temp, path)
	}
	if err != nil {
		_ = fsys.Remove(temp) // it takes room; where it stays it is written over
		return nil, fmt.Errorf("write %s: %w", path, errors.Join(err, f.Close()))
	}
	if err := Sync(fsys, filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("write %s: directory: %w", path, errors.Join(err, f.Close()))
	}
	return f, nil
}
