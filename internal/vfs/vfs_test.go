package vfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/internal/vfs/vfstest"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestDiskIsAFileSystem: the disk in memory and the real one answer alike.
func TestDiskIsAFileSystem(t *testing.T) {
	for name, root := range map[string]struct {
		fs  vfs.FS
		dir string
	}{"os": {vfs.OS{}, t.TempDir()}, "memory": {vfstest.New(), "/"}} {
		t.Run(name, func(t *testing.T) {
			path := func(s string) string { return filepath.Join(root.dir, s) }
			d := root.fs
			_, missing := vfs.ReadFile(d, path("x"))
			must(0, d.MkdirAll(path("d/e"), 0o700))(t)
			must(0, vfs.Replace(d, path("d/f"), []byte("one"), 0o600))(t)
			must(0, d.Link(path("d/f"), path("d/g")))(t)
			linked := d.Link(path("d/f"), path("d/g"))
			_, exists := d.OpenFile(path("d/f"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			full := d.Remove(path("d"))
			must(0, vfs.Replace(d, path("d/f"), []byte("two"), 0o600))(t)
			one, two := must(vfs.ReadFile(d, path("d/g")))(t), must(vfs.ReadFile(d, path("d/f")))(t)
			lock := must(d.Lock(path("lock")))(t)
			_, locked := d.Lock(path("lock"))
			must(0, lock.Close())(t)
			again := must(d.Lock(path("lock")))(t)
			must(0, again.Close())(t)
			supported, err := d.SyncAll(root.dir)
			var names []string
			for _, e := range must(d.ReadDir(path("d")))(t) {
				names = append(names, fmt.Sprint(e.Name(), e.IsDir()))
			}
			got := fmt.Sprintln(errors.Is(missing, os.ErrNotExist), errors.Is(linked, os.ErrExist), errors.Is(exists, os.ErrExist), full != nil,
				string(one), string(two), errors.Is(locked, vfs.ErrLocked), supported || name == "os", err, names)
			if want := "true true true true one two true true <nil> [etrue ffalse gfalse]\n"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
