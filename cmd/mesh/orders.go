package main

import (
	"fmt"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/spf13/cobra"
)

// cancelledJob is what `cancel --json` prints.
type cancelledJob struct {
	api.Summary
	Stopped []string `json:"stopped"`
	Missing []string `json:"missing"`
}

func (c *cli) cancelCommand() *cobra.Command {
	cmd := c.order(api.VerbCancel, "Stop a job everywhere, for good",
		`Cancel stops a job on all peers, for good; what it gave so far is dropped. It
waits up to two seconds, and says which peers have stopped and which were not
heard of: those stop when they hear of it. It needs the owner's key: the
owner.key in the home of the meshd that submitted it.`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := c.client.Control(cmd.Context(), args[0], api.VerbCancel)
		if err != nil {
			return err
		}
		who, err := c.client.Stopped(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.print(cancelledJob{s, who.Stopped, who.Missing})
		}
		if err := c.showOrder(s); err != nil {
			return err
		}
		for _, p := range who.Stopped {
			c.field("stopped", p)
		}
		for _, p := range who.Missing {
			c.field("missing", p)
		}
		return nil
	}
	return cmd
}

func (c *cli) pauseCommand() *cobra.Command {
	return c.order(api.VerbPause, "Start no more tasks of a job, until resume",
		`Pause has all peers start no more tasks of a job; those that run go on to their
end. "mesh resume" goes on. It needs the owner's key, as cancel does.`)
}

func (c *cli) resumeCommand() *cobra.Command {
	return c.order(api.VerbResume, "Go on with a paused job", "")
}

func (c *cli) retryCommand() *cobra.Command {
	return c.order(api.VerbRetry, "Run the failed tasks of a failed job again",
		`Retry gives the tasks of a job that has failed all their attempts again; results
that are there stay. It needs the owner's key, as cancel does.`)
}

func (c *cli) removeCommand() *cobra.Command {
	return c.order(api.VerbRemove, "Remove an ended job with its results",
		`Rm has all peers drop the results of a job that has ended, before its retention
is over. It needs the owner's key, as cancel does.`)
}

// order is the command that gives an owner's order.
func (c *cli) order(verb api.Verb, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:               string(verb) + " JOB",
		Short:             short,
		Long:              long,
		Args:              arguments(1, 1, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := c.client.Control(cmd.Context(), args[0], verb)
			if err != nil {
				return err
			}
			if c.json {
				return c.print(s)
			}
			return c.showOrder(s)
		},
	}
}

func (c *cli) showOrder(s api.Summary) error {
	_, err := fmt.Fprintf(c.out, "%s %s\n", inline(s.Job), inline(string(s.State)))
	return err
}

func (c *cli) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "why JOB",
		Short:             "Say what a job waits for",
		Args:              arguments(1, 1, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := c.client.Why(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.print(w)
			}
			for _, r := range w.Reasons {
				fmt.Fprintln(c.out, inline(r))
			}
			if len(w.Reasons) == 0 {
				fmt.Fprintf(c.out, "%s: it waits for nothing\n", inline(string(w.State)))
			}
			return nil
		},
	}
}
