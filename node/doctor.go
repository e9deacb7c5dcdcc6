package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/dht"
	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/dustin/go-humanize"
	"github.com/libp2p/go-libp2p/core/network"
)

const (
	// lowDisk is free disk below which a peer soon can't write its journal.
	lowDisk = 1 << 30
	// oldestClock is before any released version: a clock that shows less is wrong.
	oldestClock = 1767225600 // 2026-01-01
)

// Doctor implements api.Network.
func (b *backend) Doctor(ctx context.Context) ([]api.Check, error) {
	n := b.n
	checks := []api.Check{
		n.checkHome(), n.checkJournal(), n.checkDisk(), n.checkQuota(), n.checkChunks(), n.checkListening(), n.checkPeers(), n.checkClock(), n.checkEngine(ctx),
	}
	checks = append(checks, n.checkBootstrap(ctx)...)
	worst := map[api.Level]int{api.LevelError: 0, api.LevelWarning: 1, api.LevelOK: 2}
	slices.SortStableFunc(checks, func(a, b api.Check) int { return worst[a.Level] - worst[b.Level] })
	return checks, ctx.Err()
}

func fine(name, format string, args ...any) api.Check {
	return api.Check{Name: name, Level: api.LevelOK, Detail: fmt.Sprintf(format, args...)}
}

// count is a number of things for people: "1 task", "2 tasks".
func count(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (n *Node) checkHome() api.Check {
	path := filepath.Join(n.home.dir, "doctor.tmp")
	err := os.WriteFile(path, []byte("x"), 0o600)
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return api.Check{Name: "home", Level: api.LevelError, Detail: err.Error(), Advice: "make the home writable, or choose another with --home"}
	}
	return fine("home", "%s can be written", n.home.dir)
}

// checkJournal says what a repair has left behind.
func (n *Node) checkJournal() api.Check {
	path := n.journal.path + damagedEnd
	data, err := vfs.ReadFile(n.home.fs, path)
	if errors.Is(err, fs.ErrNotExist) {
		return fine("journal", "%s, whole", humanize.IBytes(uint64(n.journal.size.Load())))
	}
	c := api.Check{Name: "journal", Level: api.LevelWarning, Advice: "look after this machine's disk; remove the file when you have read this"}
	found, readErr := readJournal(data)
	if err = errors.Join(err, readErr); err != nil {
		c.Detail = fmt.Sprintf("%s, kept when the journal was repaired, can't be read: %v", path, err)
	} else {
		c.Detail = fmt.Sprintf("it was repaired, and is without what %s has lost: %s", path, lossText(found.damage))
	}
	return c
}

func (n *Node) checkDisk() api.Check {
	free, err := n.home.fs.Free(n.home.dir)
	if err != nil {
		return api.Check{Name: "disk", Level: api.LevelWarning, Detail: err.Error()}
	}
	c := fine("disk", "%s free", humanize.IBytes(uint64(max(free, 0))))
	if err := n.commit.waits(); err != nil {
		c.Level, c.Detail = api.LevelError, fmt.Sprintf("this peer waits for room, and is silent until then: %v", err)
		c.Advice = "free some disk, or start meshd with a larger --quota where that is what is full"
	} else if free < lowDisk {
		c.Level, c.Advice = api.LevelError, "free some disk, or move the home: with a full disk this peer falls silent"
	} else if u := n.store.Usage(); free < u.Quota-u.Used {
		c.Level, c.Advice = api.LevelWarning, "the store's quota is more than the disk has: lower --quota"
	}
	return c
}

func (n *Node) checkQuota() api.Check {
	if c, tight := n.room.check(); tight {
		return c
	}
	u := n.store.Usage()
	c := fine("quota", "%s of %s used", humanize.IBytes(uint64(u.Used)), humanize.IBytes(uint64(u.Quota)))
	if u.Used > u.Quota/10*9 {
		c.Level, c.Advice = api.LevelWarning, "`mesh gc` drops what nothing holds; a larger --quota holds more"
	}
	return c
}

func (n *Node) checkListening() api.Check {
	addrs := n.addrs()
	if len(addrs) == 0 {
		return api.Check{
			Name: "listening", Level: api.LevelWarning, Detail: "no address: other peers can't connect to this one",
			Advice: "give an address with --listen that this machine has",
		}
	}
	if len(addrs) == 1 {
		return fine("listening", "%s", addrs[0])
	}
	return fine("listening", "%d addresses, the first %s", len(addrs), addrs[0])
}

func (n *Node) checkPeers() api.Check {
	if k := n.net.Stats().Peers; k > 0 {
		return fine("peers", "%d connected", k)
	}
	return api.Check{
		Name: "peers", Level: api.LevelWarning, Detail: "no other peer is connected",
		Advice: "join one with `mesh connect ADDR` or `meshd --bootstrap ADDR`; `mesh id` on the other machine prints ADDR",
	}
}

func (n *Node) checkClock() api.Check {
	now := time.Now()
	if now.Unix() < oldestClock {
		return api.Check{Name: "clock", Level: api.LevelError, Detail: "the clock shows " + now.UTC().Format(time.RFC3339), Advice: "set the clock: jobs seem to be of the future"}
	}
	return fine("clock", "%s", now.UTC().Format(time.RFC3339))
}

func (n *Node) checkEngine(context.Context) api.Check {
	if n.cfg.Slots == 0 {
		return fine("engine", "no slots: this peer runs no tasks")
	}
	if _, err := os.Stat(n.cfg.Child[0]); err != nil {
		return api.Check{Name: "engine", Level: api.LevelError, Detail: err.Error(), Advice: "was meshd's file replaced? start it again"}
	}
	c := fine("engine", "%s, %s", sandbox.EngineName(), count(uint64(n.cfg.Slots), "slot"))
	if sandbox.EngineName() == "wazero" {
		c.Level, c.Advice = api.LevelWarning, "a meshd built with a C compiler runs tasks about three times as fast"
	}
	return c
}

func (n *Node) checkBootstrap(ctx context.Context) (list []api.Check) {
	for _, text := range n.cfg.Bootstrap {
		info, err := dht.ParseAddr(text)
		if err != nil || info.ID == n.home.peer {
			continue
		}
		connected := n.net.Host().Network().Connectedness(info.ID) == network.Connected
		var other *dht.OtherMeshError
		if connected {
			errors.As(n.net.Connect(ctx, info), &other) // which makes no second connection, but looks who is there
		}
		switch {
		case other != nil && other.Mesh == "":
			list = append(list, api.Check{
				Name: "bootstrap", Level: api.LevelError, Detail: text + " is no meshd", Advice: "give the address that `mesh id` prints there",
			})
		case other != nil:
			list = append(list, api.Check{
				Name: "bootstrap", Level: api.LevelError, Detail: fmt.Sprintf("%s is a peer of the mesh %s, this one is of %s", text, other.Mesh, n.cfg.Mesh),
				Advice: "start one of the two with the other's --mesh",
			})
		case connected:
			list = append(list, fine("bootstrap", "%s is connected", text))
		default:
			list = append(list, api.Check{
				Name: "bootstrap", Level: api.LevelWarning, Detail: text + " is not reached",
				Advice: "is meshd running there, and does its port get through? It is tried again all the time",
			})
		}
	}
	return list
}
