package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/spf13/cobra"
)

// The exit statuses of mesh.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitInterrupted = 130
)

// cli is one run of the command: its standard streams and what all commands share.
type cli struct {
	in          io.Reader
	out, err    io.Writer
	outTerminal bool
	errTerminal bool

	home    string
	json    bool
	client  *api.Client
	started bool // the arguments were understood: errors from here on are no usage errors
}

// interrupted is the error of a command that the user broke off; note says what goes on.
type interrupted struct{ note string }

func (e *interrupted) Error() string { return e.note }

// usage is an error in what was typed.
func usage(format string, args ...any) *api.Error {
	return api.Errorf(api.KindInvalid, format, args...)
}

// run runs the command and gives its exit status.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if c.client != nil {
		c.client.Close()
	}
	if err == nil {
		return exitDone
	}
	return c.report(ctx, cmd, err)
}

// report writes the error for people, or as JSON, and gives the exit status.
func (c *cli) report(ctx context.Context, cmd *cobra.Command, err error) int {
	var broken *interrupted
	if errors.As(err, &broken) || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		if broken == nil {
			broken = &interrupted{"interrupted"}
		}
		fmt.Fprintln(c.err, "mesh: "+printable(broken.note))
		return exitInterrupted
	}
	e := &api.Error{Kind: api.KindOf(err), Message: plain(err.Error())}
	var full *api.Error
	if errors.As(err, &full) {
		e.Advice = full.Advice
	}
	if !c.started {
		e.Kind = api.KindInvalid
		if e.Advice == "" {
			e.Advice = fmt.Sprintf("see `%s --help`", cmd.CommandPath())
		}
	}
	if c.json {
		json.NewEncoder(c.err).Encode(struct {
			Error *api.Error `json:"error"`
		}{e})
	} else {
		fmt.Fprintln(c.err, cmd.CommandPath()+": "+printable(e.Message))
		if e.Advice != "" {
			fmt.Fprintln(c.err, "  "+printable(e.Advice))
		}
	}
	switch e.Kind {
	case api.KindInvalid:
		return exitUsage
	case api.KindUnreachable:
		return exitUnreachable
	}
	return exitFailed
}

// packages begins the parts of an error that say which package it is from: of use in a
// log, not to who types a command.
var packages = regexp.MustCompile(`(^|: )(?:(?:api|chunkstore|dht|job|market|node|protocol|sandbox|testnet): )+`)

func plain(message string) string { return packages.ReplaceAllString(message, "$1") }

// arguments checks how many arguments a command has; what names them.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch n := len(args); {
		case n > most:
			return usage("unexpected argument %q", args[most])
		case n < least:
			return usage("%s is missing", what)
		}
		return nil
	}
}

// anyNumber is no bound.
const anyNumber = math.MaxInt

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mesh",
		Short: "Run work on a mesh of peers that lend idle machines",
		Long: `mesh runs work on a mesh of peers that lend idle machines.

It talks to the meshd of this machine, which has to run: start it with "meshd".
Exit status: 0 done, 1 the job failed or any other error, 2 usage,
3 cannot reach meshd, 130 interrupted.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			c.started = true
			return c.chooseHome()
		},
	}
	root.PersistentFlags().StringVar(&c.home, "home", "", "`DIR` that is the home of the meshd to talk to (default $MESH_HOME, else ~/.mesh)")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON: one object, or one a line")
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddGroup(
		&cobra.Group{ID: groupJobs, Title: "Jobs:"},
		&cobra.Group{ID: groupFiles, Title: "Files:"},
		&cobra.Group{ID: groupPeer, Title: "This peer and the mesh:"},
	)
	root.SetHelpCommandGroupID(groupPeer)
	root.SetCompletionCommandGroupID(groupPeer)
	for group, commands := range map[string][]*cobra.Command{
		groupJobs: {
			c.submitCommand(), c.lsCommand(), c.statusCommand(), c.watchCommand(), c.waitCommand(),
			c.logsCommand(), c.getCommand(), c.cancelCommand(), c.pauseCommand(), c.resumeCommand(), c.retryCommand(),
			c.removeCommand(), c.whyCommand(),
		},
		groupFiles: {c.addCommand(), c.catCommand(), c.pinCommand(), c.unpinCommand(), c.storeCommand(), c.gcCommand()},
		groupPeer: {
			c.idCommand(), c.connectCommand(), c.peersCommand(), c.doctorCommand(), c.drainCommand(),
			c.versionCommand(), c.testnetCommand(),
		},
	} {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	return root
}

const (
	groupJobs  = "jobs"
	groupFiles = "files"
	groupPeer  = "peer"
)

// chooseHome finds the home and prepares the client; it does not connect.
func (c *cli) chooseHome() error {
	if c.home == "" {
		c.home = os.Getenv("MESH_HOME")
	}
	if c.home == "" {
		dir, err := os.UserHomeDir()
		if err != nil {
			return usage("no home directory: %w", err).WithAdvice("give one with --home DIR")
		}
		c.home = filepath.Join(dir, ".mesh")
	}
	client, err := api.NewClient(c.home)
	if err != nil {
		return err
	}
	c.client = client
	return nil
}

// print writes an object for --json.
func (c *cli) print(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// note writes a line for people to standard error.
func (c *cli) note(format string, args ...any) {
	fmt.Fprintln(c.err, printable(fmt.Sprintf(format, args...)))
}

// terminal gives c.out, with control characters escaped where it is a terminal: for
// bytes that other peers wrote.
func (c *cli) terminal() io.Writer {
	if c.outTerminal {
		return &escaper{c.out}
	}
	return c.out
}
