package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/spf13/cobra"
)

func (c *cli) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the jobs that this peer knows",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client.Jobs(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.print(list)
			}
			return c.showJobs(list.Jobs)
		},
	}
}

func (c *cli) showJobs(jobs []api.Summary) error {
	columns := []string{"JOB", "STATE", ">DONE", ">TASKS", ">AGE", "NAME"}
	if slices.ContainsFunc(jobs, func(j api.Summary) bool { return j.Reason != "" }) {
		columns = append(columns, "WHY")
	}
	g := newGrid(columns...)
	for _, j := range jobs {
		cells := []any{j.Job, j.State, j.Done, j.Tasks, span(age(j.Created)), j.Name, j.Reason}
		g.row(cells[:len(columns)]...)
	}
	return g.write(c.out)
}

// age is the time since then; a clock that was set back makes nothing negative.
func age(then time.Time) time.Duration { return max(0, time.Since(then)) }

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "status [JOB]",
		Short:             "Show how a job is or, without JOB, this peer",
		Args:              arguments(0, 1, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.self(cmd.Context())
			}
			s, err := c.client.Status(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.print(s)
			}
			return c.showStatus(s)
		},
	}
}

func (c *cli) showStatus(s api.Status) error {
	c.field("job", s.Job)
	c.field("name", s.Name)
	c.field("state", string(s.State))
	c.field("why", s.Reason)
	if s.State.Ended() {
		c.field("ended", fmt.Sprintf("%s ago, after %s", span(age(s.Ended)), span(s.Ended.Sub(s.Created))))
	} else {
		c.field("age", span(age(s.Created)))
		c.field("progress", advance(s))
	}
	keepers := fmt.Sprintf("%d of %d wanted", s.Keepers, s.Wanted)
	if s.Away > 0 {
		keepers = fmt.Sprintf("%d of %d wanted, %d more out of reach", s.Keepers-s.Away, s.Wanted, s.Away)
	}
	if s.Groups > 0 {
		keepers += fmt.Sprintf(" of each of %d parts of the input; %s with parts alone", s.Groups, count(uint64(s.Spread), "further peer"))
	}
	c.field("keepers", keepers)
	c.field("owner", s.Owner)
	fmt.Fprintln(c.out)
	g := newGrid("STAGE", ">TASKS", ">DONE", ">RUNNING", ">PENDING", ">FAILED")
	for _, st := range s.Stages {
		g.row(st.Name, st.Tasks, st.Done, st.Running, st.Pending, st.Failed)
	}
	if err := g.write(c.out); err != nil {
		return err
	}
	if len(s.Peers) > 0 {
		fmt.Fprintln(c.out)
		g := newGrid("PEER", ">TASKS", ">RUNNING", ">IN", ">OUT")
		for _, p := range s.Peers {
			g.row(p.Peer, p.Tasks, running(p), size(p.BytesIn), size(p.BytesOut))
		}
		if err := g.write(c.out); err != nil {
			return err
		}
	}
	if len(s.Failures) > 0 {
		fmt.Fprintln(c.out, "\nfailures")
		for _, f := range s.Failures {
			fmt.Fprintln(c.out, "  "+inline(attempts(f)))
		}
	}
	return nil
}

// running is what a peer runs, in words: "2", "2 (45 %)", "2 (compiling)".
func running(p api.PeerWork) string {
	text := fmt.Sprint(p.Running)
	switch {
	case p.Compiling > 0:
		text += " (compiling)"
	case p.Progress != nil:
		text += fmt.Sprintf(" (%.0f %%)", 100**p.Progress)
	}
	return text
}

// field writes a named line, or nothing where there is nothing to say.
func (c *cli) field(name, value string) {
	if value != "" {
		fmt.Fprintf(c.out, "%-8s %s\n", name, inline(value))
	}
}

func (c *cli) self(ctx context.Context) error {
	s, err := c.client.Self(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.print(s)
	}
	c.field("peer", s.Peer)
	c.field("mesh", s.Mesh)
	c.field("home", s.Home)
	if s.Fallback {
		c.field("socket", s.Socket+" (the home's path is too long for a socket)")
	}
	for _, a := range s.Addrs {
		c.field("address", a)
	}
	if s.Dashboard != "" {
		c.field("metrics", s.Dashboard+"/metrics")
	}
	c.field("up", fmt.Sprintf("%s, process %d, %s, %s", span(time.Duration(s.Uptime*float64(time.Second))), s.PID, s.Version, s.Engine))
	c.field("peers", fmt.Sprint(s.Peers))
	c.field("jobs", fmt.Sprint(s.Jobs))
	c.field("slots", fmt.Sprintf("%d, %d running; lends %s of memory", s.Slots, s.Running, size(s.Memory)))
	c.field("store", fmt.Sprintf("%s of %s", size(s.Stored), size(s.Quota)))
	if s.Draining {
		c.field("draining", "takes no new work")
	}
	return nil
}

func (c *cli) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch JOB",
		Short: "Follow a job until it ends",
		Long: `Watch shows a job's progress on standard error until the job ends, and then says
how it ended. The exit status is 0 if it is done, 1 if it failed or was
cancelled. With --json it prints the whole status as it changes, one a line.`,
		Args:              arguments(1, 1, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if c.json {
				var last api.Status
				err := c.client.Watch(ctx, args[0], func(s api.Status) error { last = s; return c.print(s) })
				return c.verdict(last, cancelled(ctx, err, "stopped watching; the job goes on"))
			}
			last, err := c.awaitEnd(ctx, args[0])
			if err == nil && last.State == api.StateDone {
				fmt.Fprintln(c.out, ending(last))
			}
			return c.verdict(last, err)
		},
	}
}

// verdict is err, or the failure of a job that has ended badly.
func (c *cli) verdict(s api.Status, err error) error {
	if err == nil && s.State != api.StateDone {
		return c.failure(s)
	}
	return err
}

func (c *cli) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait JOB...",
		Short: "Wait until jobs have ended",
		Long: `Wait returns when all the jobs have ended; it prints a line for each. The exit
status is 0 if all are done, 1 if one failed or was cancelled.`,
		Args:              arguments(1, anyNumber, "JOB"),
		ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var failed error
			for _, id := range args {
				s, err := c.client.Wait(cmd.Context(), id)
				if err != nil {
					return cancelled(cmd.Context(), err, "stopped waiting; the jobs go on")
				}
				if c.json {
					err = c.print(s)
				} else {
					_, err = fmt.Fprintf(c.out, "%s %s\n", inline(s.Job), inline(string(s.State)))
				}
				if err != nil {
					return err
				}
				if s.State != api.StateDone && failed == nil {
					failed = c.failure(s)
				}
			}
			return failed
		},
	}
}

// completionTime bounds how long a press of the tab key may take.
const completionTime = time.Second

// completeJobs gives the shell the jobs that can stand at a place.
func (c *cli) completeJobs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "wait" || c.chooseHome() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, stop := context.WithTimeout(context.Background(), completionTime)
	defer stop()
	list, err := c.client.Jobs(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, j := range list.Jobs {
		if !slices.Contains(args, j.Job) {
			names = append(names, cobra.CompletionWithDesc(j.Job, inline(string(j.State)+" "+j.Name)))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
