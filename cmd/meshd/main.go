// Command meshd is a peer: it lends this machine to the mesh, and is what mesh submits
// through. It reads its configuration, starts a node, says how it can be reached, and
// ends it when asked to; all else is in package node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/compute-mesh/mesh/node"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/spf13/pflag"
)

// The exit statuses of meshd.
const (
	exitDone  = 0
	exitFault = 1
	exitUsage = 2
)

// closeTime is how long a peer may take to hand back its work when it is asked to end.
const closeTime = 10 * time.Second

// heapFloor is how many bytes of garbage a heap may have before it is collected, whatever else is in it: those of a peer with little to
// do are some 10 MiB, and were collected ten times a second while it ran short tasks, for a tenth of its CPU.
const heapFloor = 32 << 20

// childCommand is what meshd calls itself with to run tasks in.
const childCommand = "sandbox-child"

func main() {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(sandbox.ChildMain(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

func run(args []string, env func(string) (string, bool), out, errs io.Writer) int {
	o, err := configure(args, env)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(out, o.help)
		return exitDone
	}
	if err == nil && o.version {
		fmt.Fprintln(out, "meshd", node.Version)
		return exitDone
	}
	if err == nil {
		err = o.node.Validate()
	}
	if err != nil {
		fmt.Fprintf(errs, "meshd: %v\n  see `meshd --help`\n", err)
		return exitUsage
	}
	o.node.Log = slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: o.level}))
	if err := serve(o.node, out); err != nil {
		fmt.Fprintf(errs, "meshd: %v\n", err)
		return exitFault
	}
	return exitDone
}

// serve runs a peer until a signal or its own end. A second signal ends the process at
// once.
func serve(cfg node.Config, out io.Writer) error {
	floor := make([]byte, heapFloor) // counts as in use, and takes no memory: nothing is ever written to it
	defer runtime.KeepAlive(floor)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	starting, started := context.WithCancel(context.Background())
	defer started()
	asked := make(chan struct{})
	go func() {
		<-signals
		close(asked)
		started() // an end that is asked for while it starts
		<-signals
		os.Exit(exitFault)
	}()
	n, err := node.New(starting, cfg)
	if err != nil {
		return err
	}
	if err := introduce(starting, cfg.Home, out); err != nil {
		cfg.Log.Warn("this peer can't say how it is reached", "error", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }()
	select {
	case <-asked:
	case err = <-ended:
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return errors.Join(err, n.Close(ctx))
}

// introduce prints who this peer is, who may submit to it, and what another machine
// types to join it.
func introduce(ctx context.Context, home string, out io.Writer) error {
	client, err := api.NewClient(home)
	if err != nil {
		return err
	}
	defer client.Close()
	self, err := client.Self(ctx)
	if err != nil {
		return err
	}
	id, err := client.ID(ctx)
	if err != nil {
		return err
	}
	field := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-8s %s\n", name, fmt.Sprintf(format, args...))
	}
	field("peer", "%s of the mesh %s", id.Peer, id.Mesh)
	field("home", "%s", self.Home)
	if self.Dashboard != "" {
		field("metrics", "%s/metrics", self.Dashboard)
	}
	switch self.Slots {
	case 0:
		field("runs", "no tasks: it submits and keeps")
	case 1:
		field("runs", "one task at a time, of any peer of the mesh")
	default:
		field("runs", "up to %d tasks at once, of any peer of the mesh", self.Slots)
	}
	field("submit", "this user alone, through %s", self.Socket)
	field("join", "%s", id.Join)
	return nil
}
