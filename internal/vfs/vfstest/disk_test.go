package vfstest

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/compute-mesh/mesh/internal/vfs"
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

func put(t *testing.T, f vfs.File, text string) {
	t.Helper()
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d vfs.FS, path string) vfs.File {
	t.Helper()
	return must(d.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600))(t)
}

// outcomes are the contents that a file has after crashes of many seeds; "-" is none.
func outcomes(t *testing.T, path string, prepare func(*Disk)) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(200) {
		d := New()
		prepare(d)
		after := d.Crash(seed)
		text := "-"
		if data, err := vfs.ReadFile(after, path); err == nil {
			text = string(data)
		}
		seen[text]++
		if _, err := vfs.ReadFile(d, path); !errors.Is(err, ErrOff) {
			t.Fatalf("the disk works without power: %v", err)
		}
	}
	return seen
}

// TestCrashKeepsWhatIsDurable: nothing that was synced is lost, nothing else is sure.
func TestCrashKeepsWhatIsDurable(t *testing.T) {
	synced := outcomes(t, "/a", func(d *Disk) {
		f := create(t, d, "/a")
		put(t, f, "kept")
		must(0, f.Sync())(t)
		must(0, vfs.Sync(d, "/"))(t)
	})
	if len(synced) != 1 || synced["kept"] != 200 {
		t.Errorf("synced file: %v", synced)
	}
	noName := outcomes(t, "/a", func(d *Disk) {
		f := create(t, d, "/a")
		put(t, f, "kept")
		must(0, f.Sync())(t)
	})
	if len(noName) != 2 || noName["-"] == 0 || noName["kept"] == 0 {
		t.Errorf("file whose name was not synced: %v", noName)
	}
	tail := outcomes(t, "/a", func(d *Disk) {
		f := create(t, d, "/a")
		put(t, f, "kept")
		must(0, f.Sync())(t)
		must(0, vfs.Sync(d, "/"))(t)
		put(t, f, "lost")
		put(t, f, "too")
	})
	for text := range tail {
		if len(text) < 4 || text[:4] != "kept" {
			t.Errorf("synced bytes changed: %q", text)
		}
	}
	if tail["keptl"]+tail["keptlo"]+tail["keptlos"] == 0 {
		t.Error("no write was torn")
	}
	for _, want := range []string{"kept", "keptlost", "keptlosttoo", "kept\x00\x00\x00\x00too"} {
		if tail[want] == 0 {
			t.Errorf("%q never happened", want)
		}
	}
}

// TestCrashOfARename: the old or the new content, whole, where the new one was synced before.
func TestCrashOfARename(t *testing.T) {
	seen := outcomes(t, "/a", func(d *Disk) {
		if err := vfs.Replace(d, "/a", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := create(t, d, "/b")
		put(t, f, "new")
		must(0, f.Sync())(t)
		must(0, d.Rename("/b", "/a"))(t)
	})
	if len(seen) != 2 || seen["old"] == 0 || seen["new"] == 0 {
		t.Errorf("%v", seen)
	}
	if replaced := outcomes(t, "/a", func(d *Disk) { must(0, vfs.Replace(d, "/a", []byte("new"), 0o600))(t) }); replaced["new"] != 200 {
		t.Errorf("replaced: %v", replaced)
	}
}

// TestCrashTearsSectors: of a large write that was not synced some sectors are there and earlier ones are not.
func TestCrashTearsSectors(t *testing.T) {
	big := string(bytes.Repeat([]byte("x"), 8*sector))
	holes := 0
	for text := range outcomes(t, "/a", func(d *Disk) {
		f := create(t, d, "/a")
		must(0, vfs.Sync(d, "/"))(t)
		put(t, f, big)
	}) {
		if i := bytes.IndexByte([]byte(text), 0); i >= 0 && bytes.IndexByte([]byte(text[i:]), 'x') > 0 {
			holes++
		}
	}
	if holes < 5 {
		t.Errorf("%d torn files of 200 have holes", holes)
	}
}

// TestDirectoriesCanBeLost: a name in a directory that was not durable is gone with it.
func TestDirectoriesCanBeLost(t *testing.T) {
	seen := outcomes(t, "/dir/a", func(d *Disk) {
		must(0, d.MkdirAll("/dir", 0o700))(t)
		must(0, vfs.Replace(d, "/dir/a", []byte("x"), 0o600))(t)
	})
	if seen["-"] == 0 || seen["x"] == 0 {
		t.Errorf("%v", seen)
	}
}

// TestFullDisk: a write takes what fits and fails; room that comes free is used.
func TestFullDisk(t *testing.T) {
	d := New()
	d.SetSize(3 * block)
	f := create(t, d, "/a")
	n, err := f.Write(make([]byte, 5*block))
	if n != 3*block || !vfs.IsFull(err) || d.Used() != 3*block || d.Peak() != 3*block {
		t.Fatalf("%d bytes written of a disk of %d, %d used: %v", n, 3*block, d.Used(), err)
	}
	if _, err := d.OpenFile("/b", os.O_WRONLY|os.O_CREATE, 0o600); !vfs.IsFull(err) {
		t.Fatalf("a file on a full disk: %v", err)
	}
	must(0, f.Truncate(10))(t)
	if d.Used() != block {
		t.Errorf("%d bytes used after a truncation", d.Used())
	}
	create(t, d, "/b")
	must(0, d.Remove("/a"))(t)
	if d.Used() != 2*block {
		t.Errorf("%d bytes used: an open file takes room", d.Used())
	}
	must(0, f.Close())(t)
	if free := must(d.Free("/"))(t); d.Used() != block || free != 2*block {
		t.Errorf("%d bytes used, %d free", d.Used(), free)
	}
}

// TestFailedSyncLosesWhatWasToBeWritten: a second Sync succeeds and has written nothing.
func TestFailedSyncLosesWhatWasToBeWritten(t *testing.T) {
	seen := outcomes(t, "/a", func(d *Disk) {
		faults := &Faults{FS: d}
		f := create(t, faults, "/a")
		must(0, vfs.Sync(d, "/"))(t)
		put(t, f, "lost")
		faults.FailAt(faults.Ops(), syscall.EIO, false)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		must(0, f.Sync())(t)
		if data := must(vfs.ReadFile(d, "/a"))(t); string(data) != "lost" {
			t.Fatalf("readers see %q", data)
		}
	})
	if len(seen) != 1 || seen[""] != 200 {
		t.Errorf("%v", seen)
	}
}
