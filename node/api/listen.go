package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path that a unix socket may have on every system: macOS
// and the BSDs have 104 bytes in sun_path, one of them for the final zero.
const maxSocketPath = 103

const (
	socketName = "api.sock"
	// stagingSuffix names the socket until it has its mode.
	stagingSuffix = ".new"
)

// SocketPath is where the daemon of a home listens: api.sock in it or, where that path
// is too long for a unix socket, a path in /tmp made from the user's ID and the home's
// path; fallback tells which. Client and daemon get the same answer.
func SocketPath(home string) (path string, fallback bool, err error) {
	home, err = filepath.Abs(home)
	if err != nil {
		return "", false, fmt.Errorf("api: home %s: %w", home, err)
	}
	if real, err := filepath.EvalSymlinks(home); err == nil {
		home = real
	}
	path = filepath.Join(home, socketName)
	if len(path)+len(stagingSuffix) <= maxSocketPath {
		return path, false, nil
	}
	sum := sha256.Sum256([]byte(home))
	return filepath.Join(fallbackDir(), hex.EncodeToString(sum[:8])+".sock"), true, nil
}

func fallbackDir() string { return "/tmp/mesh-" + strconv.Itoa(os.Getuid()) }

// Listener is the API socket of a home.
type Listener struct {
	*net.UnixListener
	path     string
	fallback bool
	once     sync.Once
}

// Path is the socket's path, Fallback tells whether it is outside the home.
func (l *Listener) Path() string   { return l.path }
func (l *Listener) Fallback() bool { return l.fallback }

// Close stops listening and removes the socket.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() { err = errors.Join(ignoreMissing(os.Remove(l.path)), l.UnixListener.Close()) })
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Listen opens the socket of a home, which must exist, with mode 0600; at no time can it
// be connected to by other users. The caller has the home to itself (it holds the lock of
// it), so a socket that is there already is a dead daemon's, and is replaced. Clients
// that connect before the socket is served wait.
func Listen(home string) (*Listener, error) {
	path, fallback, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	if fallback {
		if err := ownDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	staging := path + stagingSuffix
	if err := ignoreMissing(os.Remove(staging)); err != nil {
		return nil, fmt.Errorf("api: socket of %s: %w", home, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: staging, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("api: socket of %s: %w", home, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(staging, 0o600)
	if err == nil {
		err = os.Rename(staging, path)
	}
	if err != nil {
		os.Remove(staging)
		l.Close()
		return nil, fmt.Errorf("api: socket of %s: %w", home, err)
	}
	return &Listener{UnixListener: l, path: path, fallback: fallback}, nil
}

// ownDir makes a directory that only this user can enter, or refuses one that another
// user has put there.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("api: socket directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("api: socket directory %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return Errorf(KindConflict, "%s is not a directory of this user alone", dir).
			WithAdvice("remove it, or choose a shorter --home")
	}
	return nil
}
