package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/market"
	"github.com/multiformats/go-multiaddr"
)

// Version is the version of the program, set by the linker (-X) in released builds.
var Version = "dev"

const (
	// AllCPUs as Config.Slots: one slot a CPU.
	AllCPUs = -1
	// minQuota is the least store that can hold a job's chunks in transit; the default is never below it.
	minQuota = 1 << 30
	// smallestQuota is the least that may be asked for: a few chunks, for tests of full stores.
	smallestQuota = 16 << 20
	// assumedMemory is taken for the machine's memory where it can't be told: 4 GiB, less than most have.
	assumedMemory = 4 << 30
	// DefaultHTTP is where the dashboard and /metrics are, unless the port is taken.
	DefaultHTTP = "127.0.0.1:7780"
)

// Config says how a peer runs. Start from DefaultConfig. Zero values of Memory, Quota, HTTP, Listen, Child and Log
// mean their default.
type Config struct {
	// Home is the directory of everything that the peer remembers. Default $HOME/.mesh.
	Home string
	// Mesh is the mesh's name, 1 to 32 of a-z, 0-9 and '-'. Default "default".
	Mesh string
	// Listen are multiaddresses to listen on. Default: port 7740, TCP and QUIC, all interfaces, IPv4 and IPv6.
	Listen []string
	// Bootstrap are addresses of peers to join through, each with /p2p/ID.
	Bootstrap []string
	// Slots is how many tasks run at once: AllCPUs, or 0 (submits and keeps, runs nothing) to market.MaxSlots.
	// Default AllCPUs.
	Slots int
	// Memory is lent to all tasks together, in bytes. Default half of the machine's.
	Memory int64
	// Quota bounds the chunk store, in bytes; at least 16 MiB. Default: what was chosen at the first start in this
	// home, a fifth of the free disk then, at least 1 GiB.
	Quota int64
	// HTTP is the loopback address of /metrics; "off": none. Default DefaultHTTP; a free port when that is taken.
	HTTP string
	// LAN finds peers of the mesh by multicast DNS. Default true.
	LAN bool
	// Gossip announces and hears of jobs by gossip; without it peers ask one another for open jobs. Default true.
	Gossip bool
	// TestNet is for many peers on one machine: LAN is off, and the peer listens on free loopback ports unless
	// Listen says otherwise.
	TestNet bool
	// Refuse are the IDs of peers that this one keeps apart from, until the API says otherwise: TestNet only.
	Refuse []string
	// Repair starts on a damaged journal, without what is lost of it.
	Repair bool
	// Child is the command that starts a sandbox process. Default: this executable with the argument sandbox-child.
	Child []string
	// Log gets what a person who runs the peer may want to know. Default: nothing is logged.
	Log *slog.Logger

	disk vfs.FS // where home and journal are; default the system's
}

// DefaultConfig is a peer of the mesh "default" with its home in the user's home directory.
func DefaultConfig() Config {
	home := ".mesh"
	if dir, err := os.UserHomeDir(); err == nil {
		home = filepath.Join(dir, ".mesh")
	}
	return Config{Home: home, Mesh: "default", Slots: AllCPUs, LAN: true, Gossip: true}
}

var meshName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("node: config: "+format, args...))
	}
	if c.Home == "" {
		fault("home is empty")
	}
	if !meshName.MatchString(c.Mesh) {
		fault("mesh name %q: want 1 to 32 of a-z, 0-9 and '-'", c.Mesh)
	}
	for _, a := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(a); err != nil {
			fault("listen address %q: %w; want for example /ip4/0.0.0.0/tcp/7740", a, err)
		}
	}
	if len(c.Refuse) > 0 && !c.TestNet {
		fault("refuse: only a peer of a testnet refuses others")
	}
	if _, err := peerIDs(c.Refuse); err != nil {
		fault("refuse: %w", err)
	}
	if c.Slots < AllCPUs || c.Slots > market.MaxSlots {
		fault("slots %d: want -1 (as many as CPUs), or 0 to %d", c.Slots, market.MaxSlots)
	}
	if c.Memory < 0 {
		fault("memory %d: want a number of bytes", c.Memory)
	}
	if c.Quota != 0 && c.Quota < smallestQuota {
		fault("quota %d: want at least %d bytes", c.Quota, smallestQuota)
	}
	if c.HTTP != "" && c.HTTP != "off" {
		if err := checkLoopback(c.HTTP); err != nil {
			fault("http address %q: %w", c.HTTP, err)
		}
	}
	return errors.Join(faults...)
}

// checkLoopback refuses an address that other machines could reach: the dashboard has no login.
func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%w; want for example %s, or off", err, DefaultHTTP)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("not a loopback address; want for example %s, or off", DefaultHTTP)
	}
	return nil
}

// withDefaults fills what is zero.
func (c Config) withDefaults() (Config, error) {
	if c.Slots == AllCPUs {
		c.Slots = min(runtime.NumCPU(), market.MaxSlots)
	}
	if c.Memory == 0 {
		c.Memory = int64(totalMemory() / 2)
	}
	if c.HTTP == "" {
		c.HTTP = DefaultHTTP
	}
	if c.TestNet {
		c.LAN = false
		if len(c.Listen) == 0 {
			c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
		}
	}
	if len(c.Child) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("node: config: command that starts a sandbox process: %w", err)
		}
		c.Child = []string{exe, "sandbox-child"}
	}
	if c.disk == nil {
		c.disk = vfs.OS{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
