package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"golang.org/x/sys/unix"
)

// standardOutput is what names it as the value of -o.
const standardOutput = "-"

// target is where results go.
type target struct {
	path    string // -o
	pattern string // --output-name
	byFile  bool   // each result goes with one input file: --split file, no reduce
}

// targetKind is the form that results take.
type targetKind int

const (
	kindStream    targetKind = iota + 1 // outputs joined in task order, to standard output
	kindFile                            // the same, to a file
	kindDirectory                       // a file for each output
)

// kind follows from the value of -o and what else was given.
func (t target) kind() targetKind {
	if t.path == standardOutput {
		return kindStream
	}
	stat, err := os.Stat(t.path)
	if err == nil && stat.IsDir() || strings.HasSuffix(t.path, "/") || t.pattern != "" || t.byFile {
		return kindDirectory
	}
	return kindFile
}

// check refuses a target that can't be written to.
func (t target) check() error {
	if t.pattern != "" && t.path == standardOutput {
		return usage("--output-name without a directory").WithAdvice("give one with -o DIR/")
	}
	stat, err := os.Stat(filepath.Clean(t.path)) // "file/" is there, if file is
	exists := err == nil
	switch t.kind() {
	case kindDirectory:
		if exists && !stat.IsDir() {
			return usage("-o %s has to be a directory for these results, and is a file", t.path).WithAdvice("give another path")
		}
	case kindFile:
		if exists && !stat.Mode().IsRegular() {
			return nil // a device or a pipe is written to as it is
		}
		dir := filepath.Dir(t.path)
		if stat, err := os.Stat(dir); err != nil || !stat.IsDir() {
			return usage("-o %s: there is no directory %s", t.path, dir).WithAdvice("make it, or give another path")
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return api.Errorf(api.KindForbidden, "-o %s: no permission to write in %s", t.path, dir).WithAdvice("give another path")
		}
	}
	return nil
}

// name is the file in a directory that a task's output is written to.
func (t target) name(task, tasks uint64, input string) (string, error) {
	pattern := t.pattern
	if pattern == "" && t.byFile {
		pattern = "{name}"
	}
	name, err := job.OutputName(pattern, protocol.TaskIndex(task), tasks, input)
	if err != nil {
		return "", usage("%w", err).WithAdvice("choose names with --output-name, as in '{index}.out'")
	}
	return name, nil
}

// written says what was written.
type written struct {
	Path    string `json:"path"`
	Outputs uint64 `json:"outputs"`
	Files   uint64 `json:"files"` // of /out/
	Bytes   uint64 `json:"bytes"`
	Left    uint64 `json:"files_left,omitempty"` // of /out/, not written
	Missing uint64 `json:"missing,omitempty"`    // tasks without result
}

// fetch writes a job's results, and notes what was not written.
func (c *cli) fetch(ctx context.Context, id string, t target, o api.ResultsOptions) (written, error) {
	w := written{Path: t.path}
	kind := t.kind()
	o.Files = kind == kindDirectory
	res, err := c.client.Results(ctx, id, o)
	if err != nil {
		return w, err
	}
	defer res.Close()
	p := c.newProgress()
	defer p.close()
	src := &fetched{Results: res}
	if kind != kindStream { // there the outputs themselves are seen
		src.seen = p.fetching
	}
	switch kind {
	case kindDirectory:
		err = writeDirectory(t, src, &w)
	case kindFile:
		err = replaceFile(t.path, func(dst io.Writer) error { return join(dst, src, &w) })
	default:
		err = join(c.terminal(), src, &w)
	}
	p.close()
	if err != nil {
		return w, err
	}
	sum, err := res.Summary()
	if err != nil {
		return w, err
	}
	w.Missing = sum.Missing
	if w.Left = sum.Files - w.Files; w.Left > 0 {
		c.note("%s that tasks wrote to /out/ left out: `mesh get %s -o DIR/` fetches all", count(w.Left, "file"), id)
	}
	if w.Missing > 0 {
		c.note("%s without result", count(w.Missing, "task"))
	}
	return w, nil
}

// fetched is results that tell, where somebody wants to know, how far they have been read.
type fetched struct {
	*api.Results
	outputs, bytes uint64
	seen           func(outputs, of, bytes uint64)
}

// Next goes on to the next output.
func (f *fetched) Next() (api.Output, error) {
	out, err := f.Results.Next()
	if err == nil && out.File == "" {
		f.outputs++
	}
	return out, err
}

// Read reads the output.
func (f *fetched) Read(b []byte) (int, error) {
	n, err := f.Results.Read(b)
	f.bytes += uint64(n)
	if f.seen != nil {
		f.seen(f.outputs, f.Info.Tasks, f.bytes)
	}
	return n, err
}

// joinBuffer is what is gathered of small outputs before it is written.
const joinBuffer = 64 << 10

// join copies all standard outputs, in task order.
func join(dst io.Writer, res *fetched, w *written) (err error) {
	to := bufio.NewWriterSize(struct{ io.Writer }{dst}, joinBuffer) // a file's ReadFrom would take a buffer for each output
	defer func() {
		if failed := to.Flush(); err == nil {
			err = failed
		}
	}()
	for {
		out, err := res.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if out.File != "" {
			continue
		}
		n, err := io.Copy(to, res)
		if w.Bytes += uint64(n); err != nil {
			return err
		}
		w.Outputs++
	}
}

// writeDirectory writes each output to a file of its own, the files of /out/ beside it.
func writeDirectory(t target, res *fetched, w *written) error {
	if err := os.MkdirAll(t.path, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(t.path)
	if err != nil {
		return err
	}
	defer root.Close()
	t.byFile = t.byFile || res.Info.Mapped && res.Info.Split == string(api.SplitFile)
	owner := map[string]uint64{} // which task a name is of
	for {
		out, err := res.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := t.name(out.Task, res.Info.Tasks, out.Input)
		if err != nil {
			return err
		}
		if out.File != "" {
			if err := protocol.ValidName(out.File); err != nil {
				return fmt.Errorf("file that task %d wrote to /out/: %w", out.Task, err)
			}
			name = path.Join(path.Dir(name), out.File)
		}
		if other, taken := owner[name]; taken {
			return api.Errorf(api.KindConflict, "tasks %d and %d both have a result called %s", other, out.Task, name).
				WithAdvice("give each task a directory: --output-name '{index}/stdout'")
		}
		owner[name] = out.Task
		n, err := writeIn(root, name, res)
		if err != nil {
			return fmt.Errorf("result of task %d: %w", out.Task, err)
		}
		if w.Bytes += uint64(n); out.File != "" {
			w.Files++
		} else {
			w.Outputs++
		}
	}
}

// writeIn writes a file under root, whole or not at all. What it replaces is never
// followed out of root, symbolic links included.
func writeIn(root *os.Root, name string, r io.Reader) (int64, error) {
	dir := path.Dir(name)
	if err := root.MkdirAll(dir, 0o777); err != nil {
		return 0, err
	}
	temp := path.Join(dir, temporary())
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		root.Remove(temp)
	}
	return n, err
}

// replaceFile writes a file, whole or not at all, with the mode of the one that it
// replaces. What is no regular file (a device, a pipe) is written to as it is.
func replaceFile(name string, write func(io.Writer) error) error {
	mode := fs.FileMode(0)
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	if stat, err := os.Stat(name); err == nil {
		if !stat.Mode().IsRegular() {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(write(f), f.Close())
		}
		mode = stat.Mode().Perm()
	}
	temp := filepath.Join(filepath.Dir(name), temporary())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil && mode != 0 {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

// temporary is a name that nothing has yet.
func temporary() string { return fmt.Sprintf(".mesh-%016x", rand.Uint64()) }
