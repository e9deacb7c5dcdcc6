package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Pool needs.
type Config struct {
	Dir   string   // scratch files, compiled code and its key; made with mode 0700. For one pool at a time. Required
	Logs  []string // existing directories, besides Dir, that Task.Log files are in: children can write nowhere else
	Slots int      // tasks run at once, at least 1. Default: none
	Child []string // command line that leads to ChildMain, with the arguments that are appended to it. Required

	MaxProgram     int64         // bytes of a program. Default 64 MiB
	CacheBytes     int64         // bytes of compiled code on disk; the program in use may pass it. Default 1 GiB
	CompileTimeout time.Duration // wall time of a compilation. Default 2 min: a 3 MB program takes 2 s
	ChildMemory    int64         // bytes of memory of a child beside the linear memory of its program, compiler included. Default 3 GiB
	IdleTimeout    time.Duration // a child without a task is ended after it; 0 for never. Default 30 s

	// CheckpointEvery is the least wall time between two snapshots of a task, and until its first: calls of the program in
	// between do nothing, so an interruption costs at most that much more. Where snapshots take long it is longer, so that
	// they take no more than a tenth of the time. Default 1 s
	CheckpointEvery time.Duration

	Log *slog.Logger // Default: discards
}

// DefaultConfig has every default; Dir, Slots and Child are left to set.
func DefaultConfig() Config {
	return Config{
		MaxProgram: 64 << 20, CacheBytes: 1 << 30,
		CompileTimeout: 2 * time.Minute, ChildMemory: 3 << 30,
		IdleTimeout: 30 * time.Second, CheckpointEvery: time.Second,
		Log: slog.New(slog.DiscardHandler),
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New("sandbox: config: "+text))
		}
	}
	check(c.Dir != "", "Dir is required")
	check(c.Slots >= 1, "Slots must be at least 1")
	check(len(c.Child) > 0, "Child is required")
	check(c.MaxProgram > 0, "MaxProgram must be more than 0")
	check(c.CacheBytes >= 0, "CacheBytes must not be negative")
	check(c.CompileTimeout > 0, "CompileTimeout must be more than 0")
	check(c.ChildMemory >= 512<<20, "ChildMemory must be at least 512 MiB")
	check(c.IdleTimeout >= 0, "IdleTimeout must not be negative")
	check(c.CheckpointEvery > 0, "CheckpointEvery must be more than 0")
	check(c.Log != nil, "Log is required")
	return errors.Join(errs...)
}

const (
	scratchDir = "scratch"
	// compilesAtOnce is how many programs are compiled at once; each compilation uses all processors as it is.
	compilesAtOnce = 2
	// maxKnown is how many programs a pool remembers to have compiled; it forgets them all when there are more.
	maxKnown = 1024
	// killGrace is how long after its time limit a task's child is killed: the child answers with the outcome of a
	// program that ended just in time.
	killGrace = 10 * time.Millisecond
)

// Errors that callers may look for.
var (
	// ErrClosed is returned by a pool that was closed.
	ErrClosed = errors.New("sandbox: the pool is closed")
	// ErrProgram is in the error of Prepare for a program that cannot be compiled; Run gives such a task ClassProgram.
	ErrProgram = errors.New("sandbox: bad program")
)

// Pool runs tasks. Its methods may be used at the same time.
type Pool struct {
	cfg     Config
	cache   *cache
	spawner *spawner
	tasks   atomic.Uint64
	slots   chan struct{} // one for each running task
	compile chan struct{} // one for each running compilation

	closing context.Context
	cancel  context.CancelCauseFunc

	mu     sync.Mutex
	closed bool
	users  sync.WaitGroup        // calls under way and processes dying
	idle   []*process            // the one used last is last: its memory is warm
	known  map[string]*knowledge // by program ID

	watcher *time.Timer   // of idle children; nil if none is due
	warming chan struct{} // closed when the child that Warm starts is there; nil if there is none
}

// knowledge is what came of compiling a program, once done is closed.
type knowledge struct {
	done chan struct{}
	err  error // nil, an ErrProgram, or of the host
}

// New makes a pool, removes the scratch files of an earlier one in the same directory, and starts no child yet.
func New(cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	cfg.Logs = slices.Clone(cfg.Logs)
	for i := range cfg.Logs {
		if cfg.Logs[i], err = filepath.Abs(cfg.Logs[i]); err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Dir, scratchDir)); err != nil {
		return nil, fmt.Errorf("sandbox: remove scratch files: %w", err)
	}
	p := &Pool{
		cfg: cfg, slots: make(chan struct{}, cfg.Slots), compile: make(chan struct{}, compilesAtOnce),
		known: map[string]*knowledge{},
	}
	if p.cache, err = openCache(cfg.Dir); err != nil {
		return nil, fmt.Errorf("sandbox: cache: %w", err)
	}
	command := append(append([]string{}, cfg.Child...), childArguments(cfg)...)
	if p.spawner, err = newSpawner(command, append([]string{cfg.Dir}, cfg.Logs...), cfg.Log); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	p.closing, p.cancel = context.WithCancelCause(context.Background())
	return p, nil
}

// Close stops what runs, ends all children and removes the scratch files; results that are still open lose theirs.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	if p.watcher != nil {
		p.watcher.Stop()
	}
	p.mu.Unlock()
	p.cancel(ErrClosed)
	p.users.Wait()
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
	return errors.Join(p.spawner.close(), os.RemoveAll(filepath.Join(p.cfg.Dir, scratchDir)))
}

// enter begins a call: its context ends with the pool. leave must be called.
func (p *Pool) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, ErrClosed
	}
	p.users.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.closing, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil); p.users.Done() }, nil
}

// bury ends a child that is of no more use, in the background: a large memory takes a while to free.
func (p *Pool) bury(c *process, scratch ...string) {
	p.users.Add(1)
	go func() {
		defer p.users.Done()
		c.close()
		for _, dir := range scratch {
			if err := os.RemoveAll(dir); err != nil {
				p.cfg.Log.Warn("sandbox: scratch files of a task stay", "error", err)
			}
		}
	}()
}

// Prepare compiles a program ahead of its first task. It is not needed; a program that is bad gives an ErrProgram.
func (p *Pool) Prepare(ctx context.Context, program ProgramRef) error {
	ctx, leave, err := p.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return p.prepare(ctx, program)
}

// Compiling tells whether a program is being compiled now, or waits for that.
func (p *Pool) Compiling(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.known[id]
	if k == nil {
		return false
	}
	select {
	case <-k.done:
		return false
	default:
		return true
	}
}

// prepare compiles a program if that has not been done, once for all who ask at the same time.
func (p *Pool) prepare(ctx context.Context, program ProgramRef) error {
	for {
		p.mu.Lock()
		k := p.known[program.ID]
		mine := k == nil
		if mine {
			if len(p.known) >= maxKnown {
				clear(p.known) // those who wait keep what they wait for
			}
			k = &knowledge{done: make(chan struct{})}
			p.known[program.ID] = k
		}
		p.mu.Unlock()
		if mine {
			k.err = p.compileOnce(ctx, program)
			if k.err != nil && !lasting(k.err) {
				p.forget(program.ID, k)
			}
			close(k.done)
			return k.err
		}
		select {
		case <-k.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if k.err == nil || errors.Is(k.err, ErrProgram) {
			return k.err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// lasting reports whether compiling again would fail again: a limit of the host's may not be passed another time.
func lasting(err error) bool {
	return errors.Is(err, ErrProgram) && !errors.Is(err, errTimeout) && !errors.Is(err, errCrashed)
}

// forget drops what is known of a program; with k, only if that is still k.
func (p *Pool) forget(id string, k *knowledge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k == nil || p.known[id] == k {
		delete(p.known, id)
	}
}

// compileOnce compiles a program in a child of its own: what the compiler took of memory goes with it.
func (p *Pool) compileOnce(ctx context.Context, program ProgramRef) error {
	select {
	case p.compile <- struct{}{}:
		defer func() { <-p.compile }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	info, err := os.Stat(program.Path)
	if err != nil {
		return fmt.Errorf("sandbox: program: %w", err)
	}
	if info.Size() > p.cfg.MaxProgram {
		return fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrProgram, info.Size(), p.cfg.MaxProgram)
	}
	wasm, err := os.ReadFile(program.Path)
	if err != nil {
		return fmt.Errorf("sandbox: program: %w", err)
	}
	if err := Check(wasm, p.cfg.MaxProgram); err != nil {
		return fmt.Errorf("%w: %w", ErrProgram, err)
	}
	c, err := p.spawner.start(ctx)
	if err != nil {
		return err
	}
	defer p.bury(c)
	a, _, err := c.exchange(ctx, &request{Compile: true, Task: Task{Program: program}}, p.cfg.CompileTimeout, nil)
	switch {
	case errors.Is(err, errTimeout):
		return fmt.Errorf("%w: it takes more than %v to compile: %w", ErrProgram, p.cfg.CompileTimeout, err)
	case errors.Is(err, errCrashed):
		return fmt.Errorf("%w: compiling it (with at most %d bytes of memory): %w: %s", ErrProgram, p.cfg.ChildMemory, err, c.epitaph())
	case err != nil:
		return err
	case a.HostError != "":
		return fmt.Errorf("sandbox: compile: %s", a.HostError)
	case a.Class != ClassDone:
		return fmt.Errorf("%w: %s", ErrProgram, a.Reason)
	}
	p.cache.used(program.ID)
	if err := p.cache.trim(p.cfg.CacheBytes); err != nil {
		p.cfg.Log.Warn("sandbox: compiled code over its limit stays", "error", err)
	}
	return nil
}

// scratch is a new task's directory. It is made by the child, when it is needed.
func (p *Pool) scratch() string {
	return filepath.Join(p.cfg.Dir, scratchDir, strconv.FormatUint(p.tasks.Add(1), 10))
}

// mayLog reports what is wrong with a task's log file: no child could write it.
func (p *Pool) mayLog(path string) error {
	if path == "" {
		return nil
	}
	for _, dir := range append([]string{p.cfg.Dir}, p.cfg.Logs...) {
		if rel, err := filepath.Rel(dir, path); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return nil
		}
	}
	return fmt.Errorf("sandbox: task: log %q is beneath none of Config.Dir and Config.Logs", path)
}
