package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) storeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "store",
		Short: "Show how full this peer's store is",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.client.Store(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.print(s)
			}
			c.field("chunks", fmt.Sprint(s.Chunks))
			c.field("store", fmt.Sprintf("%s of %s", size(s.Bytes), size(s.Quota)))
			c.field("pinned", fmt.Sprint(s.Pinned))
			c.field("free", size(s.Free)+" on the disk")
			return nil
		},
	}
}

func (c *cli) gcCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Drop the chunks that nothing needs",
		Long: `Gc drops at once the chunks that no job and no pin needs. Without it they go when
the store is full.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := c.client.GC(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.print(g)
			}
			_, err = fmt.Fprintf(c.out, "dropped %s, %s\n", count(g.Chunks, "chunk"), size(g.Bytes))
			return err
		},
	}
}

func (c *cli) pinCommand() *cobra.Command {
	return c.pinning("pin", "Fetch a file and keep it until unpin", "pinned", func(ctx context.Context, id string) error { return c.client.Pin(ctx, id) })
}

func (c *cli) unpinCommand() *cobra.Command {
	return c.pinning("unpin", "Keep a file no longer", "unpinned", func(ctx context.Context, id string) error { return c.client.Unpin(ctx, id) })
}

// pinned is what `pin --json` and `unpin --json` print.
type pinned struct {
	CID    string `json:"cid"`
	Pinned bool   `json:"pinned"`
}

func (c *cli) pinning(name, short, done string, call func(context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " CID",
		Short: short,
		Args:  arguments(1, 1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := call(cmd.Context(), args[0]); err != nil {
				return err
			}
			if c.json {
				return c.print(pinned{args[0], name == "pin"})
			}
			_, err := fmt.Fprintf(c.out, "%s %s\n", done, inline(args[0]))
			return err
		},
	}
}

func (c *cli) drainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drain",
		Short: "Hand this peer's work to others, and stop its meshd",
		Long: `Drain takes no new work, stops the tasks that run, which go on elsewhere from
their last checkpoints, hands back what this peer holds, and ends its meshd.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := c.client.Drain(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.print(d)
			}
			_, err = fmt.Fprintln(c.out, "drained: this meshd ends")
			return err
		},
	}
}
