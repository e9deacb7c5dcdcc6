package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/spf13/cobra"
)

func (c *cli) getCommand() *cobra.Command {
	var t target
	var o api.ResultsOptions
	cmd := &cobra.Command{
		Use:   "get JOB -o PATH",
		Short: "Fetch the results of a job",
		Long: `Get writes the results of a job that is done: the reducers' outputs, or the
tasks' where nothing reduces them.

-o - is standard output. PATH is a directory if it is one, ends in /, if
--output-name is given, or if the input was split by file: then each output is
a file of its own, with the files that its task wrote to /out/ beside it. Else
it is one file of all outputs, in the order of the tasks.`,
		Args:              arguments(1, 1, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if t.path == "" {
				return usage("nothing says where the results go").WithAdvice("give -o PATH, or -o - for standard output")
			}
			if c.json && t.path == standardOutput {
				return usage("--json and -o - both want standard output").WithAdvice("write the results to a file or a directory")
			}
			if err := t.check(); err != nil {
				return err
			}
			if t.kind() == kindFile { // unless the job was split by file
				s, err := c.client.Status(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				t.byFile = len(s.Stages) == 1 && s.Split == string(api.SplitFile)
				if err := t.check(); err != nil {
					return err
				}
			}
			if o.Wait { // a job that has ended badly is told by what there is to fetch
				if _, err := c.awaitEnd(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			w, err := c.fetch(cmd.Context(), args[0], t, o)
			if err != nil {
				return cancelled(cmd.Context(), err, "interrupted: the results are kept, get them again")
			}
			if c.json {
				return c.print(struct {
					Job string `json:"job"`
					written
				}{args[0], w})
			}
			if t.path != standardOutput {
				c.note("results: %s in %s", size(w.Bytes), w.Path)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVarP(&t.path, "output", "o", "", "`PATH` that results go to: a file, a directory (ends in /), or - for standard output")
	fl.StringVar(&t.pattern, "output-name", "", "`PATTERN` of names in the directory: {index} {name} {dir} {stem} {ext} (default {index}.out)")
	fl.BoolVar(&o.Partial, "partial", false, "fetch what there is, of a job in any state")
	fl.BoolVar(&o.Wait, "wait", false, "wait until the job has ended")
	return cmd
}

func (c *cli) logsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs JOB[/TASK]",
		Short: "Show what tasks wrote to standard error",
		Long: `Logs shows what the tasks of a job wrote to standard error, in their order, or
what one task wrote. JOB/STAGE/TASK names a task of a later stage, JOB/STAGE all
tasks of a stage.`,
		Args:              arguments(1, 1, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, o, err := logsOf(args[0])
			if err != nil {
				return err
			}
			o.Follow = follow
			write := logWriter(c.terminal(), o.Task == nil)
			err = c.client.Logs(cmd.Context(), id, o, func(e api.LogEntry) error {
				if c.json {
					return c.print(e)
				}
				return write(e)
			})
			return cancelled(cmd.Context(), err, "stopped following; the job goes on")
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as tasks write, until the job ends")
	return cmd
}

// logsOf takes JOB, JOB/TASK, JOB/STAGE or JOB/STAGE/TASK apart.
func logsOf(arg string) (id string, o api.LogsOptions, err error) {
	parts := strings.Split(arg, "/")
	id, parts = parts[0], parts[1:]
	if n := len(parts); n > 0 {
		if task, err := strconv.ParseUint(parts[n-1], 10, 64); err == nil {
			o.Task, parts = &task, parts[:n-1]
		}
	}
	if len(parts) == 1 && parts[0] != "" {
		o.Stage, parts = parts[0], nil
	}
	if id == "" || len(parts) > 0 {
		return "", o, usage("%q names no task", arg).WithAdvice("write JOB, JOB/TASK or JOB/STAGE/TASK")
	}
	return id, o, nil
}

// logWriter gives a function that writes entries, with a line before each change of
// task where many are shown.
func logWriter(w io.Writer, many bool) func(api.LogEntry) error {
	last := ""
	return func(e api.LogEntry) error {
		if head := fmt.Sprintf("==> %s/%d <==\n", e.Stage, e.Task); many && head != last {
			last = head
			if _, err := io.WriteString(w, head); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, e.Text)
		return err
	}
}

func (c *cli) addCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add FILE...",
		Short: "Store files in the mesh and print their CIDs",
		Long: `Add stores files as chunks and prints the CID of each, which --input, --file and
"mesh cat" take. - is standard input.`,
		Args: arguments(1, anyNumber, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var items []origin
			for _, arg := range args {
				found := origin{reader: c.in, size: -1}
				if arg != standardInput {
					var err error
					if found, err = find(arg); err != nil {
						return err
					}
				}
				items = append(items, found)
			}
			src := &files{left: items}
			p := c.newProgress()
			defer p.close()
			p.importing(src)
			defer src.close()
			got, err := c.client.Import(cmd.Context(), api.ImportOptions{Form: api.FormFiles}, src)
			if err != nil {
				return cancelled(cmd.Context(), err, "interrupted: nothing was added")
			}
			p.close()
			for _, f := range got.Files {
				if c.json {
					err = c.print(f)
				} else {
					_, err = fmt.Fprintf(c.out, "%s %s\n", inline(f.CID), inline(f.Name))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (c *cli) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat CID",
		Short: "Write a file of the mesh to standard output",
		Args:  arguments(1, 1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.json {
				return usage("--json and the file's bytes both want standard output").WithAdvice("leave --json out")
			}
			return c.client.Cat(cmd.Context(), args[0], c.terminal())
		},
	}
}
