package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/spf13/cobra"
)

func (c *cli) idCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "id",
		Short: "Show this peer's name, and what another machine types to join it",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := c.client.ID(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.print(id)
			}
			c.field("peer", id.Peer)
			c.field("mesh", id.Mesh)
			c.field("owner", id.Owner)
			for _, a := range id.Addrs {
				c.field("address", a)
			}
			c.field("join", id.Join)
			return nil
		},
	}
}

func (c *cli) connectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "connect ADDR",
		Short: "Join the mesh of the peer at a multiaddress",
		Long: `Connect joins the mesh through a peer; ADDR is what "mesh id" prints there, as in
/ip4/192.0.2.7/tcp/7740/p2p/12D3KooW...`,
		Args: arguments(1, 1, "ADDR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[0], "/") || !strings.Contains(args[0], "/p2p/") {
				return usage("%q is no address of a peer", args[0]).
					WithAdvice("it looks like /ip4/192.0.2.7/tcp/7740/p2p/12D3KooW...; `mesh id` prints it on the other machine")
			}
			p, err := c.client.Connect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.print(p)
			}
			_, err = fmt.Fprintf(c.out, "connected to %s\n", inline(p.Peer))
			return err
		},
	}
}

func (c *cli) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "List the peers that this one is connected to",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client.Peers(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.print(list)
			}
			g := newGrid("PEER", ">RTT", "ADDRESS")
			for _, p := range list.Peers {
				rtt, addr := "", ""
				if p.RTT > 0 {
					rtt = fmt.Sprintf("%.1f ms", p.RTT)
				}
				if len(p.Addrs) > 0 {
					addr = p.Addrs[0]
				}
				if p.Relayed {
					addr += " (relayed)"
				}
				g.row(p.Peer, rtt, addr)
			}
			return g.write(c.out)
		},
	}
}

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check what often goes wrong",
		Long: `Doctor checks what often goes wrong and says what to do about it. The exit status
is 1 if a check found an error.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client.Doctor(cmd.Context())
			if err != nil {
				return err
			}
			bad := uint64(0)
			for _, check := range all.Checks {
				if check.Level == api.LevelError {
					bad++
				}
				if c.json {
					continue
				}
				fmt.Fprintf(c.out, "%-8s %-12s %s\n", inline(string(check.Level)), inline(check.Name), inline(check.Detail))
				if check.Advice != "" {
					fmt.Fprintf(c.out, "%-21s %s\n", "", inline(check.Advice))
				}
			}
			if c.json {
				err = c.print(all)
			}
			if bad > 0 {
				err = errors.Join(err, api.Errorf(api.KindFailed, "%s failed", count(bad, "check")))
			}
			return err
		},
	}
}

// versions is what `version --json` prints.
type versions struct {
	api.Version
	Daemon *api.Version `json:"meshd,omitempty"` // nil: none answers
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the versions of mesh and of the meshd that runs",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Version: own()}
			if d, err := c.client.Version(cmd.Context()); err == nil {
				v.Daemon = &d
			}
			if c.json {
				return c.print(v)
			}
			fmt.Fprintln(c.out, "mesh ", describe(v.Version))
			if v.Daemon != nil {
				fmt.Fprintln(c.out, "meshd", describe(*v.Daemon))
			}
			return nil
		},
	}
}

// own is this program's version.
func own() api.Version {
	v := api.Version{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

func describe(v api.Version) string {
	parts := []string{v.Version}
	for _, p := range []string{v.Commit, v.Go, v.OS + "/" + v.Arch, v.Engine} {
		if p != "" && p != "/" {
			parts = append(parts, p)
		}
	}
	return inline(strings.Join(parts, " "))
}
