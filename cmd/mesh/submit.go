package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/spf13/cobra"
)

// submitFlags is what was typed.
type submitFlags struct {
	mapper, reduce   string
	inputs, include  []string
	split            string
	array            int64
	argsFrom         string
	fanIn            uint64
	files, env       []string
	retries          int
	replicas         int
	timeout          time.Duration
	memory           string
	okExit           []string
	keepGoing        bool
	nondeterministic bool
	name             string
	detach           bool
	output           string
	outputName       string

	stdin io.Reader
}

func (c *cli) submitCommand() *cobra.Command {
	f := submitFlags{stdin: c.in}
	cmd := &cobra.Command{
		Use:   "submit --map 'P.wasm ARGS' (--input FILE|DIR|CID|- | --array N | --args-from FILE) [flags] [-- MAP-ARGS...]",
		Short: "Submit a job, wait for it, and write its results",
		Long: `Submit runs a WebAssembly program (WASI preview 1) once for every piece of an
input, every number of an array, or every line of a list, on all peers that
have room. It waits, shows progress on standard error, and writes the results
to -o. Ctrl-C stops the waiting, not the job.

A task gets its piece on standard input, and {input} in its arguments is the
piece as a file; {index} and {count} are its number and how many there are,
{name} the input file's name, {1} {2} ... the fields of its line.

Without -o the job's ID is printed on standard output, and "mesh get" fetches
the results. With --detach it is printed as soon as the job is on enough peers
to go on without this machine.`,
		Example: `  mesh submit --map 'wc.wasm' --input book.txt --reduce 'sum.wasm' -o -
  mesh submit --map 'count.wasm' --input src/ --include '*.go' --reduce merge.wasm --fan-in 16 -o counts.txt
  mesh submit --array 24 --file model.stl --map 'frame.wasm -frame {index} -of {count} /in/model.stl' \
      -o frames/ --output-name '{index}.png'
  mesh submit --args-from list.txt --map 'fetch.wasm {1} -level {2}' --detach`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.check(cmd, args)
			if err != nil {
				return err
			}
			return c.submit(cmd.Context(), s)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.mapper, "map", "", "`PROGRAM` of the tasks, with its arguments in the same string")
	fl.StringArrayVar(&f.inputs, "input", nil, "`INPUT`: a file, a directory, a CID, or - for standard input (can be repeated)")
	fl.StringArrayVar(&f.include, "include", nil, "of directories take only files that match `GLOB`: the whole path if it has a /, else the name (can be repeated)")
	fl.StringVar(&f.split, "split", "", "`RULE` to cut the input by: lines:SIZE, bytes:SIZE, file (a task a file) or none (default lines:8MiB)")
	fl.Int64Var(&f.array, "array", -1, "run `N` tasks without input")
	fl.StringVar(&f.argsFrom, "args-from", "", "run a task for every line of `FILE` (- for standard input)")
	fl.StringVar(&f.reduce, "reduce", "", "`PROGRAM` that gets the outputs of all tasks joined in their order")
	fl.Uint64Var(&f.fanIn, "fan-in", 0, "reduce in a tree, `K` outputs at a time")
	fl.StringArrayVar(&f.files, "file", nil, "`FILE[:NAME]` that every task finds as /in/NAME (can be repeated)")
	fl.StringArrayVar(&f.env, "env", nil, "variable `K=V` in the tasks' environment (can be repeated)")
	fl.IntVar(&f.retries, "retries", 3, "further attempts of a task that failed, `K` of them")
	fl.DurationVar(&f.timeout, "timeout", time.Hour, "longest time of one attempt")
	fl.StringVar(&f.memory, "memory", "256MiB", "most memory of a task, a `SIZE`")
	fl.StringSliceVar(&f.okExit, "ok-exit", nil, "`LIST` of exit statuses that are no failure (default 0)")
	fl.BoolVar(&f.keepGoing, "keep-going", false, "run the other tasks of a stage when one has failed")
	fl.BoolVar(&f.nondeterministic, "nondeterministic", false, "give tasks the real clock and real randomness")
	fl.IntVar(&f.replicas, "replicas", 3, "`R` other peers keep the job and its data")
	fl.StringVar(&f.name, "name", "", "`NAME` of the job, for people (default: the program's)")
	fl.BoolVar(&f.detach, "detach", false, "do not wait for the job, only until it is accepted")
	fl.StringVarP(&f.output, "output", "o", "", "`PATH` that results go to: a file, a directory (ends in /), or - for standard output")
	fl.StringVar(&f.outputName, "output-name", "", "`PATTERN` of names in the directory: {index} {name} {dir} {stem} {ext} (default {index}.out)")
	fl.Lookup("array").DefValue = "0" // -1 says that it is not given, and is no default to show
	return cmd
}

// submission is a checked submit: what to import, and what to ask for.
type submission struct {
	request api.SubmitRequest
	mapper  origin
	reduce  *origin
	files   []origin
	input   []origin
	form    api.Form
	skipped []string // names in input directories that are no regular files
	notes   []string // for the user, before anything happens
	detach  bool
	target  target // of no path where there is no -o
}

// submitted is what `submit --json` prints.
type submitted struct {
	api.Submitted
	State    api.State `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Accepted *bool     `json:"accepted,omitempty"` // with --detach, as the next two
	Keepers  *int      `json:"keepers,omitempty"`
	Wanted   *int      `json:"wanted,omitempty"`
	Output   *written  `json:"output,omitempty"` // with -o
}

func (c *cli) submit(ctx context.Context, s *submission) error {
	if n := len(s.skipped); n > 0 {
		c.note("left out of the input, as only regular files are taken: %s", listed(s.skipped))
	}
	for _, n := range s.notes {
		c.note("%s", n)
	}
	p := c.newProgress()
	defer p.close()
	if err := c.importAll(ctx, s, p); err != nil {
		return cancelled(ctx, err, "interrupted: nothing was submitted")
	}
	sub, err := c.client.Submit(ctx, s.request)
	if err != nil {
		return cancelled(ctx, err, "interrupted while submitting: `mesh ls` shows whether the job is there")
	}
	p.close()
	for _, w := range sub.Warnings {
		c.note("warning: %s", w)
	}
	if s.detach {
		return c.detach(ctx, sub)
	}
	if !c.json {
		c.note("job %s: %s", sub.Job, shape(sub))
		if s.target.path == "" {
			fmt.Fprintln(c.out, sub.Job)
		}
	}
	return c.follow(ctx, s, sub)
}

// follow waits for the job's end and writes its results.
func (c *cli) follow(ctx context.Context, s *submission, sub api.Submitted) error {
	last, err := c.awaitEnd(ctx, sub.Job)
	if err != nil {
		return err
	}
	out := submitted{Submitted: sub, State: last.State, Reason: last.Reason}
	var failed error
	if last.State != api.StateDone {
		failed = c.failure(last)
	} else if s.target.path != "" {
		w, err := c.fetch(ctx, sub.Job, s.target, api.ResultsOptions{})
		if err != nil {
			return cancelled(ctx, err, fmt.Sprintf("interrupted: the results are kept: mesh get %s -o PATH", sub.Job))
		}
		out.Output = &w
	}
	if c.json {
		return errors.Join(c.print(out), failed)
	}
	if failed == nil {
		c.note("%s", ending(last))
		switch s.target.path {
		case "":
			c.note("results: mesh get %s -o PATH", sub.Job)
		case standardOutput:
		default:
			c.note("results: %s in %s", size(out.Output.Bytes), s.target.path)
		}
	}
	return failed
}

// detach waits until the job is accepted and says on how many peers it is.
func (c *cli) detach(ctx context.Context, sub api.Submitted) error {
	a, err := c.client.Accepted(ctx, sub.Job)
	if err != nil {
		return cancelled(ctx, err, fmt.Sprintf("interrupted before it was accepted: job %s runs, this machine must stay on", sub.Job))
	}
	if c.json {
		return c.print(submitted{
			Submitted: sub, State: api.StateRunning, Accepted: &a.Accepted, Keepers: &a.Keepers, Wanted: &a.Wanted,
		})
	}
	fmt.Fprintln(c.out, sub.Job)
	c.note("%s; %s", shape(sub), keeping(a))
	c.note("follow it with `mesh watch %s`, fetch results with `mesh get %s -o PATH`", sub.Job, sub.Job)
	return nil
}

// keeping says what an acceptance means for the user's machine.
func keeping(a api.Acceptance) string {
	switch {
	case a.Accepted:
		return fmt.Sprintf("accepted: kept by %s, this machine may be switched off", count(uint64(a.Keepers), "other peer"))
	case a.Keepers > 0:
		return fmt.Sprintf("kept by %s of %d that should: it goes on without this machine as long as one of them lives",
			count(uint64(a.Keepers), "other peer"), a.Wanted)
	default:
		return "no other peer keeps it: this machine must stay on until it is done and fetched"
	}
}

// importAll brings programs, files and input into the peer's store.
func (c *cli) importAll(ctx context.Context, s *submission, p *progress) error {
	run := func(form api.Form, split string, items ...origin) (api.Imported, error) {
		src := &files{left: items}
		p.importing(src)
		defer src.close()
		return c.client.Import(ctx, api.ImportOptions{Form: form, Split: split}, src)
	}
	got, err := run(api.FormProgram, "", s.mapper)
	if err != nil {
		return err
	}
	s.request.Map.Root = got.Root
	if s.reduce != nil {
		if s.reduce.path != s.mapper.path || s.reduce.cid != s.mapper.cid {
			if got, err = run(api.FormProgram, "", *s.reduce); err != nil {
				return err
			}
		}
		s.request.Reduce.Root = got.Root
	}
	if len(s.files) > 0 {
		if got, err = run(api.FormFiles, "", s.files...); err != nil {
			return err
		}
		s.request.Files = got.Files
	}
	if s.form != "" {
		if got, err = run(s.form, s.request.Split, s.input...); err != nil {
			return err
		}
		s.request.Index = got.Index
	}
	return nil
}

// cancelled gives err, or the note where the user broke the command off.
func cancelled(ctx context.Context, err error, note string) error {
	if ctx.Err() != nil && api.KindOf(err) == api.KindCanceled {
		return &interrupted{note}
	}
	return err
}
