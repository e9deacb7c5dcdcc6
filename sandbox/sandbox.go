// Package sandbox runs one task: a WASI preview-1 command module, in a child process, under limits.
//
// A Pool has a number of slots. Each slot has a child process that is started when first needed, kept for further
// tasks, killed when a task is cancelled or passes its time limit, and ended when it has had none for a while; a crash or
// a memory bomb stays in the child.
// Children never outlive the process that made the pool, however that one ends. Modules are compiled once, in a child,
// into a cache on disk that only this peer's own files are loaded from.
//
// On Linux the kernel holds a child too, should a program escape from its engine: it can write beneath the pool's
// directories alone, make no sockets, gain no privileges, and has limits on memory and open files. Elsewhere on Unix there
// is the engine's wall alone; Windows has no way to hand a child its pipes, and no pool.
//
// What a program sees is the contract of docs/design.md section 7: arguments, environment, standard input, /in
// read-only, /out, /tmp and /state writable, nothing else: no network, no host file, no clock or random source but its own
// unless the task is nondeterministic. Package wasi has all of it, for both engines: wasmtime where cgo is there at build
// time, wazero otherwise. Results do not depend on the engine, NaNs included, with two exceptions that
// WebAssembly leaves open: the depth at which recursion overflows the engine's stack (at least 512 KiB of native stack), and
// how large a table can grow.
//
// # Checkpoints
//
// At a checkpoint the pool hands its caller a Snapshot of /state, with the position of the deterministic clock and random
// source. A run that is given it begins at _start, as every run does, and finds /state as it was: nothing else survives, memory
// included. So a program that wants to go on
//
//   - writes to /state all that it needs to go on, its output so far included: what it had written to standard output,
//     /out and /tmp is gone, and only what the last run writes counts. Moving a file from /state to /out at the end is free;
//   - reads /state at its start, and skips what it has done: standard input and /in are there from the beginning;
//   - calls mesh.checkpoint when /state is whole, as often as it likes: Config.CheckpointEvery says how often it counts.
//
// Then the run that goes on gives the same bytes as one that was never interrupted, also if it draws random numbers or reads the
// clock in between, as long as it does not do so before it has read /state, where the runtimes of some languages do (Go's
// seeds its maps and math/rand): such a program keeps a generator of its own in /state. Time stamps and inode numbers
// are not restored.
//
// Of a program that does not import mesh.checkpoint snapshots can be taken all the same (Task.Auto), after one of its calls, when
// no file in /state is open for writing. It sees then what it would see had it been killed there on its own machine with the
// disk left as it was; a program that writes a file beside the old one and renames it is always right. One that keeps a
// file in /state open for writing is never snapshotted.
//
// The package does not know what a job is, fetches nothing, keeps no results and retries nothing.
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// Limits on what a task and its results may be.
const (
	// MaxArgBytes is the most bytes of arguments and environment together, as ARG_MAX on Linux.
	MaxArgBytes = 2 << 20
	// MaxInFiles is the most files in /in, MaxHostFiles the most host files that a task names: lists of them cross to the
	// child with each task.
	MaxInFiles   = 4096
	MaxHostFiles = 8192
	// MaxOutFiles is the most files that a task may leave in /out, and MaxOutNames the most bytes of their names in
	// all: the list comes back from the child in one message.
	MaxOutFiles = 10_000
	MaxOutNames = 1 << 20
	// InlineTotal is the most bytes of contents that come back in a message; what is more stays in host files.
	InlineTotal = 256 << 10
	// WasmPage is the unit of a program's memory.
	WasmPage = 64 << 10
)

// ProgramRef names a program and says where its bytes are.
type ProgramRef struct {
	_ struct{} `cbor:",toarray"`

	ID   string // the program's CID as text. The caller vouches that the bytes belong to it; compiled code is kept under it
	Path string // host file with the WebAssembly module
}

// File is a read-only file of /in.
type File struct {
	Name  string   // slash-separated path under /in, without "." and ".."
	Paths []string // host files that have the bytes, one after another; they must not change while the task runs
}

// Limits are a task's limits as its program sees them, all of them required. Bytes, but for Timeout.
type Limits struct {
	_ struct{} `cbor:",toarray"`

	Memory  int64         // linear memory; a program that asks for more sees its allocation fail
	Disk    int64         // file contents in /out, /tmp and /state together; passing it stops the program (ClassDisk)
	Output  int64         // standard output and file contents in /out; passing it stops the program (ClassOutput)
	Log     int64         // standard error that is kept; what is more is dropped and the program goes on
	Timeout time.Duration // wall time of the run, compilation apart (ClassTimeout)
}

// Task is one run of a program.
type Task struct {
	_ struct{} `cbor:",toarray"`

	Program ProgramRef
	Args    []string // argument 0 is the program's file name
	Env     []string // NAME=value
	Stdin   []string // host files that have the input, one after another, as those of a File; none for an empty input
	In      []File
	Limits  Limits

	// Deterministic gives a virtual clock and a random source seeded with Seed, else both are real.
	Deterministic bool
	Seed          [32]byte

	// Log is a host file, beneath one of Config.Logs, that standard error is appended to while the task runs; it should be
	// a new one, and is made at the first byte. With "" the log comes with the result alone, and is lost if the child is killed.
	Log string

	State string        // host file with a Snapshot of an earlier run of the same task, read at the start; "" for an empty /state
	Auto  time.Duration // wall time between snapshots of a program that calls for none itself; 0 for none

	// Checkpoint is given each new Snapshot while the task runs; with nil there are none. It is not called for one that a newer
	// one has overtaken, nor after the program has ended well. Progress is given how far the program says it is, in
	// permille, at most twice a second. Both are called from one goroutine that Run waits for, one at a time; ctx ends
	// when Run's does, or the snapshot is of no more use.
	Checkpoint func(ctx context.Context, s Snapshot) `cbor:"-"`
	Progress   func(permille int)                    `cbor:"-"`
}

// Validate reports every fault of a task at once.
func (t Task) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("sandbox: task: "+format, args...)) }
	if t.Program.ID == "" || t.Program.Path == "" {
		fail("program: ID and path are required")
	}
	total := 0
	for _, v := range append(append([]string{}, t.Args...), t.Env...) {
		total += len(v) + 1
		if strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
			fail("argument or environment %.40q is not UTF-8 without NUL", v)
		}
	}
	if total > MaxArgBytes {
		fail("arguments and environment have %d bytes, more than %d", total, MaxArgBytes)
	}
	if len(t.In) > MaxInFiles {
		fail("%d files for /in, more than %d", len(t.In), MaxInFiles)
	}
	for _, f := range t.In {
		if err := wasi.ValidName(f.Name); err != nil {
			fail("file for /in: %w", err)
		}
	}
	host := 0
	for path := range t.hostPaths {
		if host++; !utf8.ValidString(path) {
			fail("host path %q is not UTF-8", path)
		}
	}
	if host > MaxHostFiles {
		fail("%d host files, more than %d", host, MaxHostFiles)
	}
	if t.Auto < 0 {
		fail("time between snapshots: %v is negative", t.Auto)
	}
	l := t.Limits
	if l.Memory < WasmPage || l.Disk < 0 || l.Output < 0 || l.Log < 0 || l.Timeout <= 0 {
		fail("limits: memory must be at least %d, timeout more than zero, the others not negative: %+v", WasmPage, l)
	}
	return errors.Join(errs...)
}

// hostPaths gives the paths of all host files that the task names.
func (t *Task) hostPaths(yield func(string) bool) {
	lists := [][]string{{t.Program.Path, t.Log, t.State}, t.Stdin}
	for i := range t.In {
		lists = append(lists, t.In[i].Paths)
	}
	for _, list := range lists {
		for _, path := range list {
			if !yield(path) {
				return
			}
		}
	}
}

// Class says how a run ended.
type Class uint8

// The classes. All but ClassDone are failed attempts, ClassExit unless the job accepts that exit status.
const (
	ClassDone    Class = iota + 1 // exit status 0
	ClassExit                     // another exit status, see Result.Exit
	ClassTrap                     // the program did what WebAssembly forbids, or overflowed its stack
	ClassTimeout                  // Limits.Timeout was passed
	ClassMemory                   // it needs more memory than Limits.Memory to start, or the host had none left
	ClassOutput                   // Limits.Output was passed, or there are more than MaxOutFiles outputs
	ClassDisk                     // Limits.Disk was passed
	ClassProgram                  // it cannot be compiled, or not within the limits for it, or not be linked
	ClassEngine                   // the child process crashed
)

var classNames = [...]string{"", "done", "exit", "trap", "timeout", "memory", "output", "disk", "program", "engine"}

// String is the class as one word.
func (c Class) String() string {
	if int(c) < len(classNames) && c != 0 {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Completed reports whether the program ended by itself, so that there is an exit status and there are outputs.
func (c Class) Completed() bool { return c == ClassDone || c == ClassExit }

// Content is bytes that a task wrote: Data has them all when Path is empty, else the host file Path does. The file
// belongs to the caller, who may move it away; Result.Close removes those that are left.
type Content struct {
	Size int64
	Data []byte
	Path string
}

// Open returns a reader of the bytes.
func (c Content) Open() (io.ReadCloser, error) {
	if c.Path == "" {
		return io.NopCloser(bytes.NewReader(c.Data)), nil
	}
	return os.Open(c.Path)
}

// OutFile is a regular file found in /out. Its name comes from the program: it is valid UTF-8 without NUL and ".." and
// must still never be used as a host path as it is.
type OutFile struct {
	Name string // slash-separated, under /out
	Content
}

// Result is what a run left. Close must be called when its contents are no longer needed.
type Result struct {
	Class  Class
	Exit   int32  // exit status, if Class.Completed
	Reason string // why it is not ClassDone, for a person; it may have text of the program in it

	Stdout Content   // if Class.Completed
	Out    []OutFile // if Class.Completed; sorted by name

	Log        Content // whatever the class; its Path is Task.Log when the log is large, and then Close keeps it
	LogDropped int64   // bytes of standard error beyond Limits.Log

	Wall      time.Duration // without compilation and without waiting for a slot
	CPU       time.Duration // user and system time of the child; zero if it was killed
	MaxMemory int64         // linear memory at the end, which is its largest; bytes

	dir string
}

// Close removes the host files that belong to the result.
func (r *Result) Close() error {
	if r.dir == "" {
		return nil
	}
	err := os.RemoveAll(r.dir)
	r.dir = ""
	return err
}
