package vfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncFileSystem flushes the whole file system that dir is on.
func syncFileSystem(dir string) (supported bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return true, err
	}
	if err = unix.Syncfs(int(f.Fd())); err != nil {
		err = fmt.Errorf("syncfs %s: %w", dir, err)
	}
	return true, errors.Join(err, f.Close())
}
