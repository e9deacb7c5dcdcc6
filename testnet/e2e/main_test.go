package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-mesh/mesh/testnet"
	"github.com/compute-mesh/mesh/testnet/built"
)

// bin is the directory of the mesh and meshd under test.
var bin string

// binVariable names a directory that has them built already.
const binVariable = "MESH_E2E_BIN"

// sweeperVariable makes the test binary the sweeper of a directory: see sweeper.
const sweeperVariable = "MESH_E2E_SWEEP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(sweeperVariable); dir != "" {
		io.Copy(io.Discard, os.Stdin) // until the tests have ended
		sweep(dir)
		return
	}
	flag.Parse()
	status, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

// runAll runs the tests with all temporary directories in one.
func runAll(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "mesh-e2e-")
	if err != nil {
		return 1, err
	}
	defer sweep(dir)
	if err := sweeper(dir); err != nil {
		return 1, err
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return 1, err
	}
	for _, v := range os.Environ() { // what the caller has set is not what the tests mean
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "MESH_") && name != binVariable {
			os.Unsetenv(name)
		}
	}
	if bin = os.Getenv(binVariable); bin == "" {
		bin = filepath.Join(dir, "bin")
		err = built.Commands(bin, nil, "../../cmd/mesh", "../../cmd/meshd")
	}
	if err != nil {
		return 1, err
	}
	status := m.Run()
	printFigures(os.Stdout)
	return status, nil
}

// sweeper starts a process that sweeps dir when this one has ended, killed or not: what
// a testnet starts is detached, and outlives a test that can't clean up.
func sweeper(dir string) error {
	r, w, err := os.Pipe() // its writing end is open until this process ends
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sweeperVariable+"="+dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	alive = w
	return nil
}

// alive is the writing end of the sweeper's standard input.
var alive *os.File

// sweep ends every peer whose home is in dir, and removes dir.
func sweep(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
		case d.Name() == "testnet.json":
			if n, err := testnet.Open(filepath.Dir(path)); err == nil {
				n.Down(context.Background())
			}
		case d.Name() == daemonPID:
			text, _ := os.ReadFile(path)
			if pid, err := strconv.Atoi(string(text)); err == nil && pid > 1 {
				syscall.Kill(-pid, syscall.SIGKILL)
			}
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}
