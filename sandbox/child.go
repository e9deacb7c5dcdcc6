package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// The descriptors that a child inherits beside its standard ones: requests come on standard input, responses go to
// responseFD, and lifeFD reads EOF when the process that made the pool has ended.
const (
	responseFD = 3
	lifeFD     = 4
)

// ChildMain is the body of a child process: what the command line in Config.Child must call, with the arguments that follow
// it, before it does anything else. It returns the exit status. It is of no use to a person.
func ChildMain(args []string) int {
	if err := serve(args); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox child:", err)
		return 1
	}
	return 0
}

// worker is the state of a child.
type worker struct {
	engine engine
	cache  *cache
	loaded []loadedProgram // most recently used last; at most maxModules
	memory int64           // bytes beside a program's linear memory that the process may have
	cpu    time.Duration   // of the process when the task before in the same row ended; 0: there is none
	left   int64           // bytes of the last program's, which the engine may have kept for the next
}

type loadedProgram struct {
	id     string
	module module
}

func serve(args []string) error {
	if len(args) != 2 {
		return errors.New("this command is for meshd's own use: it runs a task's program")
	}
	memory, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	w := &worker{memory: memory}
	if err := restrict(); err != nil {
		return err
	}
	go endWithParent()
	if w.cache, err = openCache(args[0]); err != nil {
		return err
	}
	if w.engine, err = newEngine(); err != nil {
		return err
	}
	in := bufio.NewReaderSize(os.Stdin, maxTogether)
	out := &outbox{to: os.NewFile(responseFD, "responses")}
	if err := out.send(response{}, nil, false); err != nil { // ready
		return err
	}
	for {
		var q request
		if _, err := readFrame(in, &q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		began := time.Now()
		var a response
		var body []byte
		if q.Compile {
			a = w.compile(q)
		} else {
			a, body = w.runTask(q, out)
		}
		a.Wall = time.Since(began)
		if in.Buffered() == 0 {
			w.cpu = 0
		}
		if err := out.send(a, body, in.Buffered() > 0); err != nil {
			return err
		}
	}
}

// endWithParent ends the process when its parent has ended. On Linux the kernel does that too, and sooner.
func endWithParent() {
	var b [1]byte
	_, _ = os.NewFile(lifeFD, "life").Read(b[:]) // nothing is ever written: any return means the end
	os.Exit(1)
}

// compile makes the program's code, if the cache has none.
func (w *worker) compile(q request) response {
	limitMemory(w.memory)
	if w.cache.usable(q.Task.Program.ID) {
		return response{Class: ClassDone}
	}
	err := w.cache.compile(w.engine, q.Task.Program)
	var refused compileError
	switch {
	case errors.As(err, &refused):
		return response{Class: ClassProgram, Reason: "the program cannot be compiled: " + firstLine(refused.Error())}
	case err != nil:
		return response{HostError: err.Error()}
	}
	return response{Class: ClassDone}
}

// module is a loaded program, from memory or from the cache.
func (w *worker) module(id string) (module, error) {
	for i, l := range w.loaded {
		if l.id == id {
			w.loaded = append(slices.Delete(w.loaded, i, i+1), l)
			return l.module, nil
		}
	}
	m, err := w.cache.load(w.engine, id)
	if err != nil {
		return nil, err
	}
	w.cache.used(id)
	if len(w.loaded) >= maxModules {
		w.loaded[0].module.close()
		w.loaded = slices.Delete(w.loaded, 0, 1)
	}
	w.loaded = append(w.loaded, loadedProgram{id, m})
	return m, nil
}

// runTask runs a task; what is to be known meanwhile goes to out.
func (w *worker) runTask(q request, out *outbox) (response, []byte) {
	t := q.Task
	limitMemory(w.memory + max(t.Limits.Memory, w.left))
	started := w.cpu
	if started == 0 {
		started = cpuTime()
	}
	m, err := w.module(t.Program.ID)
	if errors.Is(err, errUncompiled) {
		return response{Uncompiled: true, Reason: err.Error()}, nil
	}
	if err != nil {
		return response{HostError: err.Error()}, nil
	}
	r := &reporter{out: out, scratch: q.Scratch, every: q.Every, last: time.Now()}
	cfg := wasi.Config{
		Args: t.Args, Env: t.Env, Stdin: t.Stdin, In: wasiFiles(t.In),
		Disk: t.Limits.Disk, Output: t.Limits.Output, Log: t.Limits.Log,
		Deterministic: t.Deterministic, Seed: t.Seed,
		Scratch: q.Scratch, LogPath: t.Log, State: t.State,
		Checkpoint: r.checkpoint, Progress: r.report,
	}
	if r.auto = t.Auto; r.auto > 0 && r.every > 0 && !m.checkpoints() {
		cfg.Unsaved = r.unsaved
	}
	sys, err := wasi.New(cfg)
	if errors.Is(err, wasi.ErrState) {
		return response{BadState: firstLine(err.Error())}, nil
	}
	if err != nil {
		return response{HostError: err.Error()}, nil
	}
	r.sys = sys
	a, body, err := w.run(sys, m, t)
	if err := errors.Join(err, sys.Close()); err != nil {
		return response{HostError: err.Error()}, nil
	}
	a.Scratched = sys.Scratched() || r.count > 0
	w.cpu = cpuTime()
	a.CPU = w.cpu - started
	return a, body
}

func wasiFiles(in []File) []wasi.File {
	if len(in) == 0 {
		return nil
	}
	files := make([]wasi.File, len(in))
	for i, f := range in {
		files[i] = wasi.File(f)
	}
	return files
}

// run runs the program and says how it ended.
func (w *worker) run(sys *wasi.System, m module, t Task) (response, []byte, error) {
	var a response
	if m.minMemory() > t.Limits.Memory {
		a.Class = ClassMemory
		a.Reason = fmt.Sprintf("the program needs %d bytes of memory to start, its limit is %d", m.minMemory(), t.Limits.Memory)
		return a, nil, nil
	}
	end, err := m.run(sys, t.Limits.Memory)
	a.MaxMemory, w.left = end.memory, end.memory
	switch stop := sys.Stopped(); {
	case err != nil:
		a.Class, a.Reason = ClassProgram, "the program cannot be started: "+firstLine(err.Error())
	case end.trap != "":
		a.Class, a.Reason = ClassTrap, "trap: "+end.trap
	case stop == nil || stop.Kind == wasi.StopExit && stop.Code == 0:
		a.Class = ClassDone
	case stop.Kind == wasi.StopExit:
		a.Class, a.Exit, a.Reason = ClassExit, stop.Code, fmt.Sprintf("exit status %d", stop.Code)
	case stop.Kind == wasi.StopDisk:
		a.Class, a.Reason = ClassDisk, fmt.Sprintf("more than %d bytes of files in /out, /tmp and /state", t.Limits.Disk)
	case stop.Kind == wasi.StopOutput:
		a.Class, a.Reason = ClassOutput, fmt.Sprintf("more than %d bytes of output", t.Limits.Output)
	default:
		return a, nil, stop.Err
	}
	if (a.Class == ClassExit || a.Class == ClassTrap) && end.memory > t.Limits.Memory/8*7 {
		a.Reason += fmt.Sprintf("; it had %d bytes of memory of %d: perhaps it needs more", end.memory, t.Limits.Memory)
	}
	return w.collect(sys, a)
}

// collect adds to the response what the program wrote. Of a program that did not complete only the log counts.
func (w *worker) collect(sys *wasi.System, a response) (response, []byte, error) {
	results, err := sys.Results(MaxOutFiles, MaxOutNames)
	if errors.Is(err, wasi.ErrTooManyOutputs) {
		a.Class, a.Exit, a.Reason, err = ClassOutput, 0, firstLine(err.Error()), nil
	}
	if err != nil {
		return a, nil, err
	}
	b := body{sys: sys}
	a.Log, a.LogDropped = b.add(results.Log), results.LogDropped
	if a.Class.Completed() {
		a.Stdout = b.add(results.Stdout)
		for _, o := range results.Out {
			a.Out = append(a.Out, outPiece{Name: o.Name, Piece: b.add(o.Content)})
		}
	}
	return a, b.bytes, b.err
}

// body gathers contents for a response.
type body struct {
	sys   *wasi.System
	bytes []byte
	err   error
}

// add puts contents in the body while there is room, else in a host file.
func (b *body) add(c wasi.Content) piece {
	p := piece{Size: c.Size}
	switch {
	case c.Path != "":
		p.File = filepath.Base(c.Path)
	case len(b.bytes)+len(c.Data) <= InlineTotal:
		b.bytes = append(b.bytes, c.Data...)
	default:
		path, err := b.sys.Keep(c.Data)
		b.err = errors.Join(b.err, err)
		p.File = filepath.Base(path)
	}
	return p
}

// firstLine is the first line of an engine's message, at most 1,000 bytes of it.
func firstLine(s string) string {
	for i := range s {
		if s[i] == '\n' || i >= 1000 {
			return s[:i]
		}
	}
	return s
}
