package node

import (
	"io"
	"os"
	"path/filepath"
)

// files is the part of the file system that the journal stands on, small enough for a test to make any call of it fail.
type files interface {
	// ReadFile reads all of a file; fs.ErrNotExist where there is none.
	ReadFile(path string) ([]byte, error)
	// Create makes an empty file in the place of any other.
	Create(path string) (logFile, error)
	// OpenAppend opens a file that is there: writes go to its end.
	OpenAppend(path string) (logFile, error)
	// Rename gives a file the place of another, durably.
	Rename(from, to string) error
}

// logFile is an open file that is written at its end.
type logFile interface {
	io.Writer
	io.Closer
	// Sync makes what was written durable.
	Sync() error
	Truncate(size int64) error
}

// osFiles is the real file system.
type osFiles struct{}

func (osFiles) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (osFiles) Create(path string) (logFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
}

func (osFiles) OpenAppend(path string) (logFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
}

func (osFiles) Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}
