package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
)

// maxInlineTotal bounds the bytes of one result's small outputs that stand inside its page: with the names of its files
// it stays well under what a page has room for. What comes after is files of their own, whatever its size; which follows
// from the outputs alone, so equal outputs are stored equally.
const maxInlineTotal = 128 << 10

// logTail is how much of a log is read for its last line.
const logTail = 4 << 10

// execute runs a task and stores what it left.
func (r *runner) execute(t *task) market.Ended {
	if t.err != nil {
		return r.unable(t, t.err)
	}
	result, err := r.sandboxed(t)
	return r.settle(t, &result, err)
}

// settle stores what a run left, and says how it ended. The result is closed.
func (r *runner) settle(t *task, result *sandbox.Result, err error) market.Ended {
	if err != nil || result.Log.Size > 0 || !result.Class.Completed() { // else no log was begun
		defer os.Remove(t.input.task.Log)
	}
	if err != nil {
		return r.unable(t, err)
	}
	defer result.Close()
	e, err := r.conclude(t, result)
	if err != nil {
		return r.unable(t, err)
	}
	e.Wall = result.Wall
	return e
}

// unable is the end of a run that is no fault of the program's.
func (r *runner) unable(t *task, err error) market.Ended {
	if t.ctx.Err() != nil {
		return market.Ended{Outcome: market.OutcomeStopped}
	}
	r.warn(t.ctx, "a task could not be run here and was given back", t, err)
	e := market.Ended{Outcome: market.OutcomeReleased, Detail: detail(err.Error())}
	var missing *chunkstore.MissingError
	if errors.As(err, &missing) && len(missing.Chunks) > 0 {
		e.Missing = missing.Chunks[0]
	}
	return e
}

// warn logs what this peer could not do for a task: as a warning, unless there was one just before.
func (r *runner) warn(ctx context.Context, what string, t *task, err error) {
	level := slog.LevelDebug
	if now := time.Now().UnixNano(); now-r.noted.Load() > int64(noteEvery) {
		r.noted.Store(now)
		level = slog.LevelWarn
	}
	r.log.Log(ctx, level, what, "job", t.Job.ID, "stage", t.Stage, "task", t.Index, "error", err)
}

// reasons are the reasons of failed attempts by class. A program that can't be compiled or crashes the engine has done
// what WebAssembly forbids, as far as anybody can tell.
var reasons = map[sandbox.Class]protocol.Reason{
	sandbox.ClassExit: protocol.ReasonExit, sandbox.ClassDone: protocol.ReasonExit,
	sandbox.ClassTrap: protocol.ReasonTrap, sandbox.ClassProgram: protocol.ReasonTrap, sandbox.ClassEngine: protocol.ReasonTrap,
	sandbox.ClassTimeout: protocol.ReasonTimeout, sandbox.ClassMemory: protocol.ReasonMemory,
	sandbox.ClassOutput: protocol.ReasonOutput, sandbox.ClassDisk: protocol.ReasonDisk,
}

// conclude says how a run ended. An error means that what it left can't be stored here.
func (r *runner) conclude(t *task, result *sandbox.Result) (market.Ended, error) {
	stage := &t.Job.Manifest.Stages[t.Stage]
	if !result.Class.Completed() || !accepted(stage, result.Exit) {
		return r.failure(t, result, reasons[result.Class], result.Reason)
	}
	if fault := checkOutputs(result.Out); fault != "" {
		return r.failure(t, result, protocol.ReasonOutput, fault)
	}
	keep := outputs{r: r, job: t.Job.ID}
	e := market.Ended{Outcome: market.OutcomeDone, Result: protocol.Result{
		Exit: result.Exit, Wall: uint64(result.Wall.Microseconds()), CPU: uint64(result.CPU.Microseconds()),
	}}
	var err error
	if e.Result.Stdout, err = keep.store(t.ctx, result.Stdout); err != nil {
		return e, err
	}
	for _, file := range result.Out {
		out, err := keep.store(t.ctx, file.Content)
		if err != nil {
			return e, err
		}
		e.Result.Files = append(e.Result.Files, protocol.File{Name: file.Name, Output: out})
	}
	e.Result.Log, err = keep.storeLog(t.ctx, result.Log)
	return e, err
}

// accepted tells whether an exit status is no failure.
func accepted(s *job.Stage, exit int32) bool {
	if len(s.OkExit) == 0 {
		return exit == 0
	}
	return slices.Contains(s.OkExit, exit)
}

// checkOutputs says what a page has no place for.
func checkOutputs(files []sandbox.OutFile) string {
	if len(files) > protocol.MaxOutFiles {
		return fmt.Sprintf("it wrote %d files to /out/, at most %d are kept", len(files), protocol.MaxOutFiles)
	}
	names := 0
	for _, file := range files {
		if err := protocol.ValidName(file.Name); err != nil {
			return fmt.Sprintf("it wrote a file to /out/ that can't be kept: %v", err)
		}
		names += len(file.Name)
	}
	if names > maxInlineTotal {
		return fmt.Sprintf("the names of its files in /out/ have %d bytes, at most %d are kept", names, maxInlineTotal)
	}
	return ""
}

func (r *runner) failure(t *task, result *sandbox.Result, why protocol.Reason, text string) (market.Ended, error) {
	e := market.Ended{Outcome: market.OutcomeFailed, Reason: why, Exit: result.Exit}
	last := lastLine(result.Log)
	switch {
	case why == protocol.ReasonExit && last != "":
		e.Detail = detail(last)
	case last != "":
		e.Detail = detail(text + ": " + last)
	default:
		e.Detail = detail(text)
	}
	if result.Log.Size == 0 {
		return e, nil
	}
	keep := outputs{r: r, job: t.Job.ID, inline: maxInlineTotal} // a record has no room for a log
	log, err := keep.store(t.ctx, result.Log)
	e.Log = log.Root
	return e, err
}

// detail makes a text fit for a record: valid, of one line, and not longer than MaxDetail.
func detail(text string) string {
	text = strings.ToValidUTF8(text, "?")
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
	for len(text) > protocol.MaxDetail {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// lastLine is the last line of a log that is not empty.
func lastLine(log sandbox.Content) string {
	tail := log.Data
	if log.Path != "" {
		f, err := os.Open(log.Path)
		if err != nil {
			return ""
		}
		defer f.Close()
		tail = make([]byte, min(log.Size, logTail))
		n, _ := f.ReadAt(tail, max(0, log.Size-logTail))
		tail = tail[:n]
	}
	lines := bytes.Split(bytes.TrimSpace(tail), []byte("\n"))
	return string(bytes.TrimSpace(lines[len(lines)-1]))
}

// outputs stores what one run left, for its job.
type outputs struct {
	r      *runner
	job    protocol.JobID
	inline int // bytes inside the page so far
}

// store keeps an output: a small one as bytes, a larger one as a file in the chunk store.
func (o *outputs) store(ctx context.Context, c sandbox.Content) (protocol.Output, error) {
	small := c.Size <= protocol.MaxInline
	if small && o.inline+int(c.Size) <= maxInlineTotal {
		o.inline += int(c.Size)
		data, err := whole(c)
		return protocol.Output{Size: uint64(c.Size), Inline: data}, err
	}
	return o.file(ctx, c)
}

// storeLog is store for a log, which is not among what equal results share.
func (o *outputs) storeLog(ctx context.Context, c sandbox.Content) (protocol.Output, error) {
	if c.Size == 0 {
		return protocol.Output{}, nil
	}
	o.inline = 0
	return o.store(ctx, c)
}

func (o *outputs) file(ctx context.Context, c sandbox.Content) (protocol.Output, error) {
	p := o.r.prep.pins
	out := protocol.Output{Size: uint64(c.Size)}
	hold := p.hold()
	var err error
	if c.Size <= chunkstore.MaxChunk {
		var data []byte
		if data, err = whole(c); err == nil {
			out.Root, err = o.r.prep.content.store.Put(ctx, data)
		}
	} else {
		out, err = o.large(ctx, c)
	}
	if err != nil {
		hold.Release()
		return out, err
	}
	p.add(setOf(o.job), hold, out.Root)
	return out, nil
}

// large imports an output of more than a chunk.
func (o *outputs) large(ctx context.Context, c sandbox.Content) (out protocol.Output, err error) {
	src, err := c.Open()
	if err != nil {
		return out, err
	}
	defer src.Close()
	im, err := o.r.prep.content.store.NewImport(chunkstore.Split{}, func(p chunkstore.Piece) error {
		out = protocol.Output{Root: p.Root, Size: uint64(p.Size)}
		return nil
	})
	if err != nil {
		return out, err
	}
	defer im.Drop()
	if err := im.Add(ctx, "output", src); err != nil {
		return out, err
	}
	_, err = im.Finish(ctx)
	return out, err
}

// whole reads all of a small output. The bytes are the caller's.
func whole(c sandbox.Content) ([]byte, error) {
	if c.Size == 0 {
		return nil, nil
	}
	if c.Path == "" {
		return bytes.Clone(c.Data), nil
	}
	src, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	data := make([]byte, c.Size)
	if _, err := io.ReadFull(src, data); err != nil {
		return nil, fmt.Errorf("node: output: %w", err)
	}
	return data, nil
}

// noteEvery is the least time between two warnings of what could not be done for a task here: a cause that stays has many.
const noteEvery = 10 * time.Second

var errNoInput = errors.New("node: input missing")
