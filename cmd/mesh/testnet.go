package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/testnet"
	"github.com/spf13/cobra"
)

func (c *cli) testnetCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "testnet",
		Short: "Run a mesh of several meshd processes on this machine",
		Long: `Testnet runs a mesh of real, detached meshd processes on this machine, on
loopback and free ports, with homes in a directory of its own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", "", "`DIR` of the testnet (default ~/.mesh-testnet)")
	open := func() (testnet.Net, error) {
		if dir == "" {
			d, err := testnet.DefaultDir()
			if err != nil {
				return testnet.Net{}, err
			}
			dir = d
		}
		return testnet.Open(dir)
	}
	cmd.AddCommand(c.testnetUp(open), c.testnetDown(open), c.testnetStatus(open), c.testnetAdd(open),
		c.testnetKill(open), c.testnetRestart(open), c.testnetPause(open), c.testnetResume(open),
		c.testnetPartition(open), c.testnetHeal(open), c.testnetChaos(open))
	return cmd
}

type opener = func() (testnet.Net, error)

func (c *cli) testnetUp(open opener) *cobra.Command {
	var cfg testnet.Config
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a testnet, and wait until its peers know each other",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := open()
			if err != nil {
				return err
			}
			if cfg.Meshd, err = besides("meshd"); err != nil {
				return err
			}
			s, err := n.Up(cmd.Context(), cfg)
			if err != nil {
				return notUp(err)
			}
			if c.json {
				return c.print(s)
			}
			if err := c.showTestnet(s); err != nil {
				return err
			}
			fmt.Fprintf(c.out, "\nNow type:\n  export MESH_HOME=%s\n  mesh status\n  mesh submit --map PROGRAM.wasm --input FILE -o RESULT\n  mesh testnet%s down\n",
				quoted(n.Home(0)), dirFlag(cmd))
			return nil
		},
	}
	cmd.Flags().IntVar(&cfg.Peers, "peers", 5, "start `N` peers")
	cmd.Flags().IntVar(&cfg.Slots, "slots", 1, "each runs `N` tasks at once")
	return cmd
}

func (c *cli) testnetDown(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End all peers of the testnet and remove all that they kept",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := open()
			if err != nil {
				return err
			}
			return n.Down(cmd.Context())
		},
	}
}

func (c *cli) testnetStatus(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the peers of the testnet are",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := open()
			if err != nil {
				return err
			}
			s, err := n.Status(cmd.Context())
			if err != nil {
				return notUp(err)
			}
			if c.json {
				return c.print(s)
			}
			return c.showTestnet(s)
		},
	}
}

func (c *cli) testnetAdd(open opener) *cobra.Command {
	var peers int
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Start more peers, and wait until they know the others",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := open()
			if err != nil {
				return err
			}
			added, err := n.Add(cmd.Context(), peers)
			if err != nil {
				return notUp(err)
			}
			if c.json {
				return c.print(map[string][]testnet.Peer{"peers": added})
			}
			return c.showTestnet(testnet.Status{Peers: added})
		},
	}
	cmd.Flags().IntVar(&peers, "peers", 1, "start `N` peers")
	return cmd
}

func (c *cli) testnetKill(open opener) *cobra.Command {
	return c.onPeer("kill I", "Kill the meshd of peer I as a crash would (signal 9)",
		func(ctx context.Context, i int) error {
			n, err := open()
			if err != nil {
				return err
			}
			return notUp(n.Kill(ctx, i))
		})
}

func (c *cli) testnetRestart(open opener) *cobra.Command {
	return c.onPeer("restart I", "Start peer I again on the ports that it had",
		func(ctx context.Context, i int) error {
			n, err := open()
			if err != nil {
				return err
			}
			p, err := n.Restart(ctx, i)
			if err == nil && c.json {
				return c.print(p)
			}
			return notUp(err)
		})
}

func (c *cli) onPeer(use, short string, do func(context.Context, int) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  arguments(1, 1, "the number of a peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := strconv.ParseUint(args[0], 10, 16)
			if err != nil {
				return usage("%q is no peer of a testnet", args[0]).WithAdvice("peers are numbered from 0: `mesh testnet status`")
			}
			return do(cmd.Context(), int(i))
		},
	}
}

func (c *cli) showTestnet(s testnet.Status) error {
	if s.Mesh != "" {
		fmt.Fprintf(c.out, "mesh %s in %s\n", inline(s.Mesh), inline(s.Dir))
		if len(s.Partition) > 0 {
			fmt.Fprintf(c.out, "parted: %s\n", groupsText(s.Partition))
		}
		fmt.Fprintln(c.out)
	}
	g := newGrid("I", "STATE", ">PEERS", ">TASKS", "DASHBOARD", "PEER")
	for _, p := range s.Peers {
		state := "dead"
		switch {
		case p.Answers:
			state = "up"
		case p.Paused:
			state = "paused"
		case p.Running:
			state = "no answer"
		}
		g.row(p.Index, state, p.Peers, p.Tasks, p.Dashboard, p.Peer)
	}
	return g.write(c.out)
}

// notUp adds what to do where there is no testnet.
func notUp(err error) error {
	if errors.Is(err, testnet.ErrNotUp) {
		return api.Errorf(api.KindNotFound, "%w", err).WithAdvice("start one with `mesh testnet up`")
	}
	return err
}

// besides is the path of the program beside this one.
func besides(name string) (string, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return "", fmt.Errorf("where mesh is: %w", err)
	}
	return filepath.Join(filepath.Dir(exe), name), nil
}

// dirFlag repeats --dir where it was given.
func dirFlag(cmd *cobra.Command) string {
	if f := cmd.Flag("dir"); f.Changed {
		return " --dir " + quoted(f.Value.String())
	}
	return ""
}

// quoted is s as a shell takes it for one word.
func quoted(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.-_+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
