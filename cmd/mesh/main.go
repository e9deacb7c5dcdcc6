// Command mesh talks to the meshd of this machine: it submits jobs, shows how they are,
// and fetches what they gave.
//
// It opens the user's files itself and hands their bytes over, so that meshd never needs
// the right to read or write them. It keeps no state, starts in a few milliseconds, and
// imports nothing of the peer itself. Results go to standard output or to files; all that
// is for people goes to standard error; what other peers wrote is escaped on a terminal.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// version is set by the linker (-X main.version=...) in released builds.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := &cli{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		outTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		errTerminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	status := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
