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

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// homeVersion is the format of a home directory: the layout below and what its files look like. A newer one is refused, an older
// one is brought to this version at a start: each file that has changed by itself, whole or not at all, and the version last, so
// that a start that is cut short is only repeated.
//
//	1  the journal is of version 1
//	2  the journal is of version 2
const homeVersion = 2

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
	fs          vfs.FS
	dir         string
	version     int // as found
	lock        vfs.File
	identity    crypto.PrivKey
	peer        peer.ID
	owner       crypto.PrivKey
	ownerID     peer.ID
	incarnation uint64
}

// path is the path of a file of the layout.
func (h *home) path(name ...string) string { return filepath.Join(append([]string{h.dir}, name...)...) }

// openHome makes or opens a home, and takes its lock.
func openHome(fsys vfs.FS, dir string) (_ *home, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("node: home: %w", err)
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("node: home: %w; choose another with --home", err)
	}
	h := &home{fs: fsys, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	if err := h.checkVersion(); err != nil {
		return nil, err
	}
	for _, d := range []string{dirJournal, dirChunks, dirSandbox} {
		if err := fsys.MkdirAll(h.path(d), 0o700); err != nil {
			return nil, fmt.Errorf("node: home: %w", err)
		}
	}
	if h.identity, h.peer, err = loadKey(fsys, h.path(fileIdentity)); err != nil {
		return nil, err
	}
	if h.owner, h.ownerID, err = loadKey(fsys, h.path(fileOwner)); err != nil {
		return nil, err
	}
	return h, h.nextIncarnation(time.Now())
}

// takeLock locks the home for this process. The system gives the lock back whatever way the process ends.
func (h *home) takeLock() error {
	f, err := h.fs.Lock(h.path(fileLock))
	if errors.Is(err, vfs.ErrLocked) {
		text, _ := vfs.ReadFile(h.fs, h.path(fileLock))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0: it has only just started
		return fmt.Errorf("node: home %s: %w (process %d): stop it, or start this one with another --home", h.dir, ErrHomeInUse, pid)
	}
	if err != nil {
		return fmt.Errorf("node: home: %w; choose another with --home", err)
	}
	h.lock = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("node: home: lock file: %w", err)
	}
	if _, err := f.Write([]byte(strconv.Itoa(os.Getpid()) + "\n")); err != nil {
		return fmt.Errorf("node: home: lock file: %w", err)
	}
	return nil
}

func (h *home) checkVersion() error {
	text, err := vfs.ReadFile(h.fs, h.path(fileVersion))
	if errors.Is(err, fs.ErrNotExist) {
		h.version = homeVersion
		// The names that lead to a new home must be as durable as what is in it. Not everybody may read what is above.
		for dir := h.dir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			if err := vfs.Sync(h.fs, filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("node: home %s: %w", h.dir, err)
			}
		}
		return h.writeVersion()
	}
	if err != nil {
		return fmt.Errorf("node: home: %w", err)
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || v == 0 {
		return fmt.Errorf("node: home %s: file %s: %q is not a version number", h.dir, fileVersion, firstBytes(text))
	}
	if v > homeVersion {
		return fmt.Errorf("node: home %s: %w: its format is %d, this meshd knows up to %d; run a newer meshd", h.dir, ErrHomeVersion, v, homeVersion)
	}
	h.version = int(v)
	return nil
}

// upgraded notes that everything in the home is of this version.
func (h *home) upgraded() error {
	if h.version == homeVersion {
		return nil
	}
	h.version = homeVersion
	return h.writeVersion()
}

func (h *home) writeVersion() error {
	return h.replace(fileVersion, strconv.Itoa(homeVersion))
}

// replace gives a file a line, durably.
func (h *home) replace(name, line string) error {
	if err := vfs.Replace(h.fs, h.path(name), []byte(line+"\n"), 0o600); err != nil {
		return fmt.Errorf("node: home: %w", err)
	}
	return nil
}

// loadKey reads a key, or makes one at the first start.
func loadKey(fsys vfs.FS, path string) (crypto.PrivKey, peer.ID, error) {
	text, err := vfs.ReadFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(fsys, path)
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

func makeKey(fsys vfs.FS, path string) (crypto.PrivKey, peer.ID, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("node: make key: %w", err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("node: make key: %w", err)
	}
	if err := vfs.Replace(fsys, path, []byte(base64.StdEncoding.EncodeToString(data)+"\n"), 0o600); err != nil {
		return nil, "", fmt.Errorf("node: key: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

// nextIncarnation is max(stored + 1, Unix ms at start), stored before it is used.
func (h *home) nextIncarnation(now time.Time) error {
	stored := uint64(0)
	text, err := vfs.ReadFile(h.fs, h.path(fileIncarnation))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("node: home: %w", err)
	}
	if err == nil {
		// A file that can't be read is as good as none: the clock stands in, and the ledger brings back any own
		// incarnation that was higher.
		stored, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	h.incarnation = max(stored+1, uint64(max(now.UnixMilli(), 0)))
	return h.replace(fileIncarnation, strconv.FormatUint(h.incarnation, 10))
}

// quota is the quota chosen at the first start: a fifth of what was free then, at least minQuota.
func (h *home) quota() (int64, error) {
	if text, err := vfs.ReadFile(h.fs, h.path(fileQuota)); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n >= smallestQuota {
			return n, nil
		}
	}
	free, err := h.fs.Free(h.dir)
	if err != nil {
		return 0, err
	}
	n := max(free/5, minQuota)
	return n, h.replace(fileQuota, strconv.FormatInt(n, 10))
}

// close gives the lock back.
func (h *home) close() error {
	if h.lock == nil {
		return nil
	}
	return h.lock.Close()
}

// firstBytes is enough of a file to show what is wrong with it.
func firstBytes(b []byte) string { return string(b[:min(len(b), 32)]) }
