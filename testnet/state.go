package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// MaxPeers bounds a testnet: each peer is a process of some 50 MiB.
const MaxPeers = 100

const (
	stateName  = "testnet.json"
	peerPrefix = "peer-"
)

// ErrNotUp says that there is no testnet in a directory.
var ErrNotUp = errors.New("there is no testnet")

// plan is what a testnet consists of; it is written once, by Up.
type plan struct {
	Mesh  string `json:"mesh"`
	Meshd string `json:"meshd"` // the program
	Slots int    `json:"slots"` // of each peer
}

// record is how a peer was last started. Listen and HTTP are empty before its first
// start has told which ports it got.
type record struct {
	Index     int      `json:"index"`
	PID       int      `json:"pid"`
	Started   string   `json:"started"` // start time as the system gives it: tells a reused PID
	Listen    []string `json:"listen,omitempty"`
	HTTP      string   `json:"http,omitempty"`
	Peer      string   `json:"peer,omitempty"`
	Addrs     []string `json:"addrs,omitempty"` // with /p2p/ and the peer ID
	Bootstrap string   `json:"bootstrap,omitempty"`
}

// Net is a testnet's directory.
type Net struct{ dir string }

// Open names the directory of a testnet, which need not be there.
func Open(dir string) (Net, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Net{}, fmt.Errorf("testnet: directory %s: %w", dir, err)
	}
	return Net{abs}, nil
}

// DefaultDir is where a testnet is when nothing else is said: ~/.mesh-testnet.
func DefaultDir() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("testnet: %w", err)
	}
	return filepath.Join(home, ".mesh-testnet"), nil
}

// Dir is the testnet's directory.
func (n Net) Dir() string { return n.dir }

// Home is the home of a peer, Log its log.
func (n Net) Home(i int) string { return filepath.Join(n.dir, peerPrefix+strconv.Itoa(i)) }
func (n Net) Log(i int) string  { return n.Home(i) + ".log" }

func (n Net) recordPath(i int) string { return n.Home(i) + ".json" }

func (n Net) plan() (plan, error) {
	var p plan
	err := readJSON(filepath.Join(n.dir, stateName), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("testnet: %w in %s", ErrNotUp, n.dir)
	}
	return p, err
}

// record reads how peer i was last started; fs.ErrNotExist where there is none.
func (n Net) record(i int) (record, error) {
	var r record
	err := readJSON(n.recordPath(i), &r)
	return r, err
}

// records are those of all peers, by their index.
func (n Net) records() ([]record, error) {
	var all []record
	for i := 0; ; i++ {
		r, err := n.record(i)
		if errors.Is(err, fs.ErrNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
}

func (n Net) save(r record) error { return writeJSON(n.recordPath(r.Index), r) }

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("testnet: %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file, so that who reads it at the same time finds the old or the
// new one.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("testnet: %s: %w", path, err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	return nil
}

// lock waits for the lock of a directory: of the testnet's for who changes which peers
// there are, of a peer's home for who starts or ends that peer. It ends with the process.
func lock(dir string) (unlock func(), err error) { return flock(dir, unix.LOCK_EX) }

// tryLock does not wait: it fails with EWOULDBLOCK where another has the lock.
func tryLock(path string) (unlock func(), err error) {
	return flock(path, unix.LOCK_EX|unix.LOCK_NB)
}

func flock(path string, how int) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("testnet: lock of %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
