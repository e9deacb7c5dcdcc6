package dht

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// maxKnown bounds the peers remembered: enough that some are there after a month away.
	maxKnown = 128
	// maxKnownAddrs bounds the addresses remembered of one.
	maxKnownAddrs = 4
	// maxKnownFile bounds the file that is read: maxKnown peers with addresses of up to 200 bytes.
	maxKnownFile = maxKnown * maxKnownAddrs * 200
	// knownFor is how long a peer that was not met again is remembered.
	knownFor = 60 * 24 * time.Hour
)

// meetAgain is how old the time of a meeting may grow while it lasts: it saves writing the file every minute.
const meetAgain = time.Hour

// known remembers where peers were met: a text file with a line an address, "unix-seconds multiaddr", newest first.
// It is a hint: what can't be read is skipped, and peers prove who they are when dialled.
type known struct {
	path string // empty: nothing is kept

	mu    sync.Mutex
	met   map[peer.ID]acquaintance
	dirty bool
}

type acquaintance struct {
	info peer.AddrInfo
	at   time.Time
}

// openKnown reads the file, if there is one.
func openKnown(path string) (*known, error) {
	k := &known{path: path, met: make(map[peer.ID]acquaintance)}
	if path == "" {
		return k, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dht: known peers: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKnownFile))
	if err != nil {
		return nil, fmt.Errorf("dht: known peers: %w", err)
	}
	k.decode(text, time.Now())
	return k, nil
}

// decode takes in the lines of a file.
func (k *known) decode(text []byte, now time.Time) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		when, addr, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		seconds, err := strconv.ParseInt(when, 10, 64)
		info, err2 := ParseAddr(addr)
		if err != nil || err2 != nil || len(addr) > maxAddrBytes {
			continue
		}
		at := time.Unix(seconds, 0)
		if at.After(now) || now.Sub(at) > knownFor {
			continue
		}
		a, old := k.met[info.ID]
		if !old && len(k.met) >= maxKnown {
			continue
		}
		if len(a.info.Addrs) < maxKnownAddrs {
			a.info = peer.AddrInfo{ID: info.ID, Addrs: append(a.info.Addrs, info.Addrs...)}
		}
		a.at = at
		k.met[info.ID] = a
	}
}

// encode gives the file's text.
func (k *known) encode() []byte {
	var text bytes.Buffer
	for _, a := range k.newest() {
		addrs, err := peer.AddrInfoToP2pAddrs(&a.info)
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			fmt.Fprintf(&text, "%d %s\n", a.at.Unix(), addr)
		}
	}
	return text.Bytes()
}

// newest lists the peers met, the last met first.
func (k *known) newest() []acquaintance {
	all := make([]acquaintance, 0, len(k.met))
	for _, a := range k.met {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b acquaintance) int {
		return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.info.ID, b.info.ID))
	})
	return all
}

// meet notes that the peer is reachable there now.
func (k *known) meet(info peer.AddrInfo) {
	if k.path == "" || len(info.Addrs) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	info.Addrs = slices.Clone(info.Addrs[:min(len(info.Addrs), maxKnownAddrs)])
	old, met := k.met[info.ID]
	if met && time.Since(old.at) < meetAgain && slices.EqualFunc(old.info.Addrs, info.Addrs, multiaddr.Multiaddr.Equal) {
		return
	}
	k.met[info.ID] = acquaintance{info, time.Now()}
	if len(k.met) > maxKnown {
		delete(k.met, k.newest()[maxKnown].info.ID)
	}
	k.dirty = true
}

// peers are all those remembered, the last met first.
func (k *known) peers() []peer.AddrInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []peer.AddrInfo
	for _, a := range k.newest() {
		out = append(out, a.info)
	}
	return out
}

// save writes the file if something has changed: whole, by rename.
func (k *known) save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.dirty {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(k.path), filepath.Base(k.path)+".*")
	if err != nil {
		return fmt.Errorf("dht: known peers: %w", err)
	}
	_, err = f.Write(k.encode())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), k.path)
	}
	if err != nil {
		return fmt.Errorf("dht: known peers: %w", errors.Join(err, os.Remove(f.Name())))
	}
	k.dirty = false
	return nil
}
