package node

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sys/unix"
)

// homeVersion is the format of a home directory: the layout below and what its files look like. A newer one is refused.
const homeVersion = 1

// The layout of a home directory.
const (
	fileVersion     = "version"      // homeVersion
	fileLock        = "meshd.pid"    // locked while a meshd runs; its process ID
	fileIdentity    = "identity.key" // the peer's key
	fileOwner       = "owner.key"    // the key that signs this user's jobs
	fileIncarnation = "incarnation"  // of the last start
	fileQuota       = "quota"        // the store's quota chosen at the first start
	filePeers       = "peers"        // peers met
	fileRunning     = "running"      // tasks that run now
	dirJournal      = "journal"
	dirChunks       = "chunks"
	dirSandbox      = "sandbox" // compiled programs and the tasks' directories
	dirLogs         = "logs"    // of running tasks; emptied at a start
	dirFiles        = "files"   // files that tasks see, written out of chunks; emptied at a start
)

// ErrHomeInUse: another meshd runs on this home.
var ErrHomeInUse = errors.New("another meshd runs on this home")

// ErrHomeVersion: the home was written by a newer version.
var ErrHomeVersion = errors.New("home was written by a newer version")

// home is an open home directory: locked, its keys read.
type home struct {
	dir         string
	lock        *os.File
	identity    crypto.PrivKey
	peer        peer.ID
	owner       crypto.PrivKey
	ownerID     peer.ID
	incarnation uint64
}

// path is the path of a file of the layout.
func (h *home) path(name ...string) string { return filepath.Join(append([]string{h.dir}, name...)...) }

// openHome makes or opens a home, and takes its lock.
func openHome(dir string) (_ *home, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("node: home: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("node: home: %w; choose another with --home", err)
	}
	h := &home{dir: dir}
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if err := h.checkVersion(); err != nil {
		return nil, err
	}
	for _, d := range []string{dirJournal, dirChunks, dirSandbox} {
		if err := os.MkdirAll(h.path(d), 0o700); err != nil {
			return nil, fmt.Errorf("node: home: %w", err)
		}
	}
	if h.identity, h.peer, err = loadKey(h.path(fileIdentity)); err != nil {
		return nil, err
	}
	if h.owner, h.ownerID, err = loadKey(h.path(fileOwner)); err != nil {
		return nil, err
	}
	return h, h.nextIncarnation(time.Now())
}

// takeLock locks the home for this process. The system gives the lock back whatever way the process ends.
func (h *home) takeLock() error {
	f, err := os.OpenFile(h.path(fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("node: home: %w; choose another with --home", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("node: home %s: lock: %w", h.dir, err)
		}
		text := make([]byte, 20)
		n, _ := f.ReadAt(text, 0)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n]))) // 0: it has only just started
		return fmt.Errorf("node: home %s: %w (process %d): stop it, or start this one with another --home", h.dir, ErrHomeInUse, pid)
	}
	h.lock = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("node: home: lock file: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("node: home: lock file: %w", err)
	}
	return nil
}

func (h *home) checkVersion() error {
	text, err := os.ReadFile(h.path(fileVersion))
	if errors.Is(err, fs.ErrNotExist) {
		return replaceFile(h.path(fileVersion), []byte(strconv.Itoa(homeVersion)+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("node: home: %w", err)
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return fmt.Errorf("node: home %s: file %s: %q is not a version number", h.dir, fileVersion, firstBytes(text))
	}
	if v > homeVersion {
		return fmt.Errorf("node: home %s: %w: its format is %d, this meshd knows up to %d; run a newer meshd", h.dir, ErrHomeVersion, v, homeVersion)
	}
	return nil
}

// loadKey reads a key, or makes one at the first start.
func loadKey(path string) (crypto.PrivKey, peer.ID, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("node: key: %w", err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, "", fmt.Errorf("node: key %s: not base64: %w", path, err)
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("node: key %s: %w", path, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, "", fmt.Errorf("node: key %s: is %s: want Ed25519", path, key.Type())
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

func makeKey(path string) (crypto.PrivKey, peer.ID, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("node: make key: %w", err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("node: make key: %w", err)
	}
	if err := replaceFile(path, []byte(base64.StdEncoding.EncodeToString(data)+"\n"), 0o600); err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

// nextIncarnation is max(stored + 1, Unix ms at start), stored before it is used.
func (h *home) nextIncarnation(now time.Time) error {
	stored := uint64(0)
	text, err := os.ReadFile(h.path(fileIncarnation))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("node: home: %w", err)
	}
	if err == nil {
		// A file that can't be read is as good as none: the clock stands in, and the ledger brings back any own
		// incarnation that was higher.
		stored, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	h.incarnation = max(stored+1, uint64(max(now.UnixMilli(), 0)))
	return replaceFile(h.path(fileIncarnation), []byte(strconv.FormatUint(h.incarnation, 10)+"\n"), 0o600)
}

// quota is the quota chosen at the first start: a fifth of what was free then, at least minQuota.
func (h *home) quota() (int64, error) {
	if text, err := os.ReadFile(h.path(fileQuota)); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n >= smallestQuota {
			return n, nil
		}
	}
	free, err := freeDisk(h.dir)
	if err != nil {
		return 0, err
	}
	n := max(free/5, minQuota)
	return n, replaceFile(h.path(fileQuota), []byte(strconv.FormatInt(n, 10)+"\n"), 0o600)
}

// close gives the lock back.
func (h *home) close() error {
	if h.lock == nil {
		return nil
	}
	return h.lock.Close()
}

// replaceFile puts data in the place of a file, durably: either the old or the new content is there after a crash.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	fail := func(err error) error { return fmt.Errorf("node: write %s: %w", path, err) }
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fail(errors.Join(err, os.Remove(temp)))
	}
	if err := os.Rename(temp, path); err != nil {
		return fail(err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("node: sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("node: sync directory %s: %w", dir, err)
	}
	return nil
}

// firstBytes is enough of a file to show what is wrong with it.
func firstBytes(b []byte) string { return string(b[:min(len(b), 32)]) }
