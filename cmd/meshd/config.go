package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/compute-mesh/mesh/node"
	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

// configName is the file in the home that settings may be in: the flags' names as keys.
const configName = "config.yaml"

// maxConfig bounds that file: far more than all flags with their longest values.
const maxConfig = 1 << 20

// options is all that was asked for.
type options struct {
	node    node.Config
	level   slog.Level
	version bool
	help    string
}

// configure takes each setting from the first that has it: flags, MESH_ variables, the
// home's config.yaml, the defaults. The error is pflag.ErrHelp where help is asked for.
func configure(args []string, env func(string) (string, bool)) (options, error) {
	o := options{node: node.DefaultConfig()}
	flags := o.flags()
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err := fromEnvironment(flags, env); err != nil {
		return o, err
	}
	if err := fromFile(flags, filepath.Join(o.node.Home, configName)); err != nil {
		return o, err
	}
	return o, nil
}

func (o *options) flags() *pflag.FlagSet {
	c := &o.node
	f := pflag.NewFlagSet("meshd", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&c.Home, "home", c.Home, "`DIR` of all that this peer remembers")
	f.StringVar(&c.Mesh, "mesh", c.Mesh, "`NAME` of the mesh to take part in")
	f.StringArrayVar(&c.Listen, "listen", nil, "`ADDR` to listen on, a multiaddress (default port 7740, TCP and UDP; can be repeated)")
	f.StringArrayVar(&c.Bootstrap, "bootstrap", nil, "`ADDR` of a peer to join through, as `mesh id` prints it there (can be repeated)")
	f.IntVar(&c.Slots, "slots", c.Slots, "run up to `N` tasks at once; 0 submits and keeps only (default one a CPU)")
	f.Lookup("slots").DefValue = "0"
	f.Var((*bytesValue)(&c.Memory), "memory", "memory `SIZE` lent to all tasks together (default half of the machine's)")
	f.Var((*bytesValue)(&c.Quota), "quota", "most disk `SIZE` that stored chunks take (default a fifth of what is free at the first start)")
	f.StringVar(&c.HTTP, "http", c.HTTP, "loopback `ADDR` of dashboard and metrics, or off (default "+node.DefaultHTTP+")")
	f.TextVar(&o.level, "log-level", slog.LevelInfo, "least `LEVEL` that is logged: debug, info, warn, error")
	f.BoolVar(&c.LAN, "lan", c.LAN, "find peers of the local network by multicast")
	f.BoolVar(&c.Gossip, "gossip", c.Gossip, "announce and hear of jobs by gossip")
	f.BoolVar(&c.TestNet, "testnet", c.TestNet, "be one of many peers on one machine: loopback only, no LAN discovery")
	f.StringArrayVar(&c.Refuse, "refuse", nil, "`ID` of a peer to keep apart from: in a testnet only")
	f.BoolVar(&c.Repair, "repair", false, "go on without what a damaged journal has lost; a flag only")
	f.BoolVar(&o.version, "version", false, "print the version and end")
	for _, name := range []string{"gossip", "testnet", "refuse"} {
		f.Lookup(name).Hidden = true
	}
	f.Usage = func() {}
	o.help = "Meshd is a peer: it lends this machine to the mesh, and is what mesh submits\nthrough. It needs no configuration.\n\n" +
		"Usage:\n  meshd [flags]\n\nFlags:\n" + f.FlagUsages() +
		"\nEach flag can be given as a variable too (MESH_HOME, MESH_LOG_LEVEL), or as a\nkey in config.yaml in the home.\n"
	return f
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "MESH_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets what no flag has set. Lists are separated by commas.
func fromEnvironment(flags *pflag.FlagSet, env func(string) (string, bool)) error {
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		text, ok := env(variable(f.Name))
		if !ok || text == "" || f.Changed || f.Name == "version" || f.Name == "repair" {
			return
		}
		values := []string{text}
		if f.Value.Type() == "stringArray" {
			values = strings.Split(text, ",")
		}
		for _, v := range values {
			if err := flags.Set(f.Name, strings.TrimSpace(v)); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", variable(f.Name), err))
			}
		}
	})
	return errors.Join(faults...)
}

// fromFile sets what neither a flag nor a variable has set.
func fromFile(flags *pflag.FlagSet, path string) error {
	stat, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && stat.Size() > maxConfig {
		err = fmt.Errorf("it has %d bytes, at most %d are read", stat.Size(), maxConfig)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	var settings map[string]yaml.Node
	if err == nil {
		err = yaml.Unmarshal(text, &settings)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var faults []error
	for key, value := range settings {
		f := flags.Lookup(key)
		if f == nil || key == "home" || key == "version" || key == "repair" {
			faults = append(faults, fmt.Errorf("%s:%d: unknown setting %q", path, value.Line, key))
			continue
		}
		if f.Changed {
			continue
		}
		if err := set(flags, key, &value); err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", path, value.Line, err))
		}
	}
	return errors.Join(faults...)
}

// set sets a flag to a value of the file: a list for one that can be repeated.
func set(flags *pflag.FlagSet, key string, value *yaml.Node) error {
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode && flags.Lookup(key).Value.Type() == "stringArray" {
		values = value.Content
	}
	for _, v := range values {
		if v.Kind != yaml.ScalarNode {
			return fmt.Errorf("%s: one value is wanted", key)
		}
		if err := flags.Set(key, v.Value); err != nil {
			return err
		}
	}
	return nil
}

// bytesValue is a flag that takes a size: "4GiB", "500MB".
type bytesValue int64

var _ pflag.Value = (*bytesValue)(nil)

func (b *bytesValue) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<62 {
		return fmt.Errorf("%q is no size: write it as in 4GiB", s)
	}
	*b = bytesValue(n)
	return nil
}

func (b *bytesValue) String() string {
	if *b == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*b))
}

func (b *bytesValue) Type() string { return "size" }
