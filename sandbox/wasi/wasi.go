// Package wasi is WASI preview 1 for one run of one program, over a small file system of its own.
//
// Both engines of the sandbox register these same functions, so what a program sees cannot depend on the engine: not
// the order of a directory, an inode number, a time stamp, a descriptor number or an error code. With
// Config.Deterministic the clock and the random source are functions of the seed alone.
//
// The guest's tree exists in memory only: /in is read-only, /out, /tmp and /state are writable. File contents are held in
// memory while they are small and in numbered host files when they grow, so no name chosen by a guest ever becomes a
// host path, and there is nothing for a guest to escape to. There are no sockets, no processes and no signals.
//
// The package knows no engine: Function describes an import, System.Call carries it out on a slice of guest memory.
// The source for names, layouts and meanings is the WASI preview 1 witx description, wasi_snapshot_preview1.
package wasi

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"
)

// Module is the import module that Functions belong to.
const Module = "wasi_snapshot_preview1"

// Limits of one system. Each one bounds what a guest can make the host hold.
const (
	// MaxDescriptors is the most descriptors open at once (EMFILE beyond); a child may have 4,096 host files open.
	MaxDescriptors = 1024
	// MaxNodes is the most files, directories and links (ENOSPC beyond): at about 400 bytes each, 26 MB of host memory.
	MaxNodes = 1 << 16
	// MaxName and MaxPath are in bytes, as on Linux (ENAMETOOLONG beyond).
	MaxName = 255
	MaxPath = 4096
	// MaxTarget is the most bytes in a symbolic link: MaxNodes of them are 64 MiB.
	MaxTarget = 1024
	// MaxLinks is how many symbolic links one path may lead through (ELOOP beyond), as on Linux.
	MaxLinks = 40
	// MaxVectors is the most buffers in one read or write (EINVAL beyond), as IOV_MAX on Linux.
	MaxVectors = 1024
	// InlineMax is the most bytes of one file or stream that stay in memory; larger ones go to a host file. Under it
	// a result costs no system call; over it the copy into a message would cost more than a file does.
	InlineMax = 16 << 10
	// heldMax is the most bytes of file contents that are in memory at once.
	heldMax = 4 << 20
)

// File is a read-only file of /in.
type File struct {
	Name  string   // slash-separated path under /in
	Paths []string // host files that have the bytes, one after another
}

// Config describes what one run of a program sees.
type Config struct {
	Args  []string // argument 0 is the program's name
	Env   []string // NAME=value
	Stdin []string // host files that have the input, one after another; none for an empty input
	In    []File

	Disk   int64 // bytes of file contents in /out, /tmp and /state together; passing it stops the program
	Output int64 // bytes of standard output and file contents in /out together; passing it stops the program
	Log    int64 // bytes of standard error that are kept; what is more is dropped

	Deterministic bool
	Seed          [32]byte // of the random source, when deterministic

	Scratch string // host directory for contents that do not stay in memory; made when first needed
	LogPath string // host file that standard error is appended to as it is written; made at the first byte. "" for none

	State string // host file with a state to go on from (see SaveState); "" for an empty /state

	// What to call, between two steps of the program, or nil: when the program calls for a checkpoint, when a call has ended
	// while /state is Unsaved, and when the program says how far it is, in permille.
	Checkpoint func()
	Unsaved    func()
	Progress   func(permille uint32)
}

// StopKind says why a program may not go on.
type StopKind uint8

// The reasons to stop.
const (
	StopExit   StopKind = iota + 1 // proc_exit: Stop.Code is the exit status
	StopDisk                       // Config.Disk was passed
	StopOutput                     // Config.Output was passed
	StopHost                       // the host failed: Stop.Err says how; no fault of the program
)

// Stop is the reason for which a system stopped its program.
type Stop struct {
	Kind StopKind
	Code int32
	Err  error
}

// System is the state of one run. It is used by one goroutine at a time. Close must be called.
type System struct {
	cfg   Config
	fds   []*descriptor
	clock clock
	rng   *rand.ChaCha8

	root, out, tmp, state *node
	nodes                 int
	lastInode             uint64
	lastFile              int
	held                  int64
	outArea               *area
	tmpArea               *area
	stateArea             *area
	saved                 uint64 // stateArea.revision that is in a state file
	stdin                 *content
	stdout                *stream
	log                   *stream

	stop *Stop
}

// New makes the system that a program starts with: descriptors 0 to 2, and 3 for the root directory. With Config.State, what it
// says is in /state, and the deterministic clock and random source go on where they were.
func New(cfg Config) (*System, error) {
	s := &System{cfg: cfg}
	if cfg.Deterministic {
		s.rng = rand.NewChaCha8(cfg.Seed)
		s.clock = clock{virtual: true, wall: ClockStart, mono: monotonicStart}
	} else {
		s.clock = clock{started: time.Now()}
	}
	if err := s.plant(); err != nil {
		return nil, err
	}
	s.stdin = &content{fixed: &fixed{paths: cfg.Stdin}}
	s.stdout = &stream{sys: s, name: "stdout", limit: -1}
	s.log = &stream{sys: s, name: "log", limit: cfg.Log, path: cfg.LogPath}
	s.fds = []*descriptor{
		{file: s.stdin, read: true, rights: rightsStdin},
		{out: s.stdout, write: true, rights: rightsStream},
		{out: s.log, write: true, rights: rightsStream},
		{node: s.root, rights: rightsDirectory, preopen: "/"},
	}
	if cfg.State != "" {
		if err := s.restore(cfg.State); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Stopped returns the reason to stop the program at once, or nil. An engine asks after every Call.
func (s *System) Stopped() *Stop { return s.stop }

// Exit stops the program with an exit status.
func (s *System) Exit(code int32) { s.halt(StopExit, code, nil) }

// Progress is the program's word for how far it is, in permille.
func (s *System) Progress(permille uint32) {
	if s.cfg.Progress != nil {
		s.cfg.Progress(min(permille, 1000))
	}
}

// Checkpoint is the program's call for a checkpoint.
func (s *System) Checkpoint() {
	if s.cfg.Checkpoint != nil {
		s.cfg.Checkpoint()
	}
}

func (s *System) halt(kind StopKind, code int32, err error) {
	if s.stop == nil {
		s.stop = &Stop{Kind: kind, Code: code, Err: err}
	}
}

// hostFault stops the program because the host failed, and returns the error code for the call under way.
func (s *System) hostFault(err error) errno {
	s.halt(StopHost, 0, fmt.Errorf("wasi: %w", err))
	return eIO
}

// Close closes the host files that are open and removes those with what the program left in /tmp and /state.
// Those with results stay.
func (s *System) Close() error {
	var errs []error
	for _, d := range s.fds {
		if d != nil {
			s.release(d)
		}
	}
	s.fds = nil
	s.discardAll(s.tmp)
	s.discardAll(s.state)
	errs = append(errs, s.stdout.close(), s.log.close())
	return errors.Join(errs...)
}

// Content is a result: its bytes, or the host file that has them.
type Content struct {
	Size int64
	Data []byte // all the bytes, when Path is empty
	Path string // host file
}

// Output is a regular file that was found in /out.
type Output struct {
	Name string // slash-separated path under /out
	Content
}

// Results is what a run leaves.
type Results struct {
	Stdout     Content
	Log        Content  // the first Config.Log bytes of standard error
	LogDropped int64    // bytes of standard error beyond them
	Out        []Output // sorted by name
}

// Results collects what the program wrote. The program must have ended; at most maxFiles outputs with maxNames bytes of
// names in all are accepted.
func (s *System) Results(maxFiles, maxNames int) (Results, error) {
	var r Results
	var err error
	if r.Stdout, err = s.stdout.finish(); err != nil {
		return r, err
	}
	if r.Log, err = s.log.finish(); err != nil {
		return r, err
	}
	r.LogDropped = s.log.dropped
	names := 0
	err = s.eachFile(s.out, func(name string, n *node) error {
		names += len(name)
		if len(r.Out) >= maxFiles || names > maxNames {
			return fmt.Errorf("%w: more than %d files or %d bytes of names in /out", ErrTooManyOutputs, maxFiles, maxNames)
		}
		r.Out = append(r.Out, Output{Name: name, Content: n.content.result()})
		return nil
	})
	return r, err
}

// Scratched reports whether there is anything in the scratch directory, or was.
func (s *System) Scratched() bool { return s.lastFile > 0 }

// ErrTooManyOutputs is returned by Results.
var ErrTooManyOutputs = errors.New("wasi: too many output files")

// scratchFile names the next host file for contents that leave memory.
func (s *System) scratchFile(name string) string {
	s.lastFile++
	return filepath.Join(s.cfg.Scratch, fmt.Sprintf("%s-%d", name, s.lastFile))
}
