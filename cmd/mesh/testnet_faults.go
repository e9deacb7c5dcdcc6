package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/testnet"
	"github.com/spf13/cobra"
)

func (c *cli) testnetPause(open opener) *cobra.Command {
	return c.onPeer("pause I", "Stop peer I and its tasks where they are (SIGSTOP)",
		func(ctx context.Context, i int) error {
			n, err := open()
			if err != nil {
				return err
			}
			return notUp(n.Pause(ctx, i))
		})
}

func (c *cli) testnetResume(open opener) *cobra.Command {
	return c.onPeer("resume I", "Let the paused peer I go on",
		func(ctx context.Context, i int) error {
			n, err := open()
			if err != nil {
				return err
			}
			return notUp(n.Resume(ctx, i))
		})
}

func (c *cli) testnetPartition(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "partition GROUP...",
		Short: "Part the testnet: peers of different groups reach each other no more",
		Long: `Partition parts the testnet into groups of peers, as a network that fails does:
peers of different groups lose their connections at once and make no new ones,
also when they are restarted, until "mesh testnet heal". Peers that are in no
group form one together. A partition that was before is replaced.`,
		Example: `  mesh testnet partition 0,1 2,3,4
  mesh testnet partition 3`,
		Args: arguments(1, testnet.MaxPeers, "a group of peers, such as 0,1,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			groups := make([][]int, len(args))
			for k, arg := range args {
				var err error
				if groups[k], err = peerList(arg); err != nil {
					return err
				}
			}
			n, err := open()
			if err != nil {
				return err
			}
			return notUp(n.Partition(cmd.Context(), groups))
		},
	}
}

func (c *cli) testnetHeal(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "heal",
		Short: "End a partition, and wait until the peers know each other again",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := open()
			if err != nil {
				return err
			}
			return notUp(n.Heal(cmd.Context()))
		},
	}
}

func (c *cli) testnetChaos(open opener) *cobra.Command {
	var cfg testnet.ChaosConfig
	var faults, keep string
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Make random faults for a time, and heal them all",
		Long: `Chaos kills, restarts and pauses peers and parts the testnet, at random, for a
time, and prints each thing that it does with the time since it began. The same
seed gives the same list for the same number of peers and the same flags; a slow
machine may be late with it. Each fault lasts 0.3 to 8 s. At the end, and when
interrupted, all is healed: the peers run and know each other when it returns.
All have to be up, and the testnet whole, when it begins.

  kill       signal 9; "start" ends it
  restart    SIGTERM, and up again
  pause      SIGSTOP of meshd and its tasks; "resume" ends it
  partition  two groups, of any size; "heal" ends it`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := chaosFlags(&cfg, faults, keep); err != nil {
				return err
			}
			n, err := open()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("seed") {
				cfg.Seed = uint64(rand.Uint32())
			}
			c.note("chaos for %s with --seed %d from %s", cfg.For, cfg.Seed, time.Now().Format("15:04:05.000"))
			return notUp(n.Chaos(cmd.Context(), cfg, func(e testnet.Event, err error) { c.showEvent(e, err) }))
		},
	}
	cmd.Flags().DurationVar(&cfg.For, "for", time.Minute, "make faults for this `TIME`")
	cmd.Flags().Uint64Var(&cfg.Seed, "seed", 0, "`NUMBER` that gives the list of faults (default a random one)")
	cmd.Flags().StringVar(&faults, "faults", "", "`LIST` of the faults to make (default "+kindsText()+")")
	cmd.Flags().StringVar(&keep, "keep", "", "`LIST` of peers that are not killed, restarted or paused")
	cmd.Flags().IntVar(&cfg.Down, "down", 0, "at most `N` peers are down at once (default a third)")
	cmd.Flags().Lookup("down").DefValue = "0"
	return cmd
}

// chaosFlags reads what is given as lists.
func chaosFlags(cfg *testnet.ChaosConfig, faults, keep string) (err error) {
	if keep != "" {
		if cfg.Keep, err = peerList(keep); err != nil {
			return err
		}
	}
	if faults == "" {
		return nil
	}
	for f := range strings.SplitSeq(faults, ",") {
		cfg.Faults = append(cfg.Faults, testnet.Kind(f))
	}
	return nil
}

func kindsText() string {
	var names []string
	for _, k := range testnet.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ",")
}

// showEvent prints a line for what chaos has done.
func (c *cli) showEvent(e testnet.Event, fault error) {
	if c.json {
		line := struct {
			At     api.Duration `json:"at"`
			Fault  testnet.Kind `json:"fault"`
			Peer   *int         `json:"peer,omitempty"`
			Groups [][]int      `json:"groups,omitempty"`
			Error  string       `json:"error,omitempty"`
		}{At: api.Duration(e.At), Fault: e.Kind, Groups: e.Groups}
		if e.OfPeer() {
			line.Peer = &e.Peer
		}
		if fault != nil {
			line.Error = plain(fault.Error())
		}
		_ = c.print(line) // chaos heals all the same where nobody reads
		return
	}
	what := string(e.Kind)
	switch {
	case e.OfPeer():
		what += " " + strconv.Itoa(e.Peer)
	case len(e.Groups) > 0:
		what += " " + groupsText(e.Groups)
	}
	if fault != nil {
		what += ": " + inline(plain(fault.Error()))
	}
	fmt.Fprintf(c.out, "%8.3fs  %s\n", e.At.Seconds(), what)
}

// peerList reads a list of peers: 0,1,2.
func peerList(text string) ([]int, error) {
	var list []int
	for word := range strings.SplitSeq(text, ",") {
		i, err := strconv.ParseUint(word, 10, 16)
		if err != nil {
			return nil, usage("%q is no list of peers", text).WithAdvice("write it as in 0,1,2; peers are numbered from 0: `mesh testnet status`")
		}
		list = append(list, int(i))
	}
	return list, nil
}

// groupsText writes groups of peers as they are typed: 0,1 2,3,4.
func groupsText(groups [][]int) string {
	words := make([]string, len(groups))
	for k, g := range groups {
		for _, i := range g {
			words[k] += "," + strconv.Itoa(i)
		}
		words[k] = strings.TrimPrefix(words[k], ",")
	}
	return strings.Join(words, " ")
}
