package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollTime is how often what can only be looked at is looked at.
const pollTime = 20 * time.Millisecond

// spawn starts a detached meshd of a session of its own, with its log appended to a
// file. ended is closed when it has ended while this process lives.
func spawn(program string, args []string, logPath string) (r record, ended <-chan struct{}, err error) {
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return r, nil, fmt.Errorf("testnet: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = filepath.Dir(logPath)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MESH_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return r, nil, fmt.Errorf("testnet: start %s: %w", program, err)
	}
	r.PID = cmd.Process.Pid
	r.Started, _ = startTime(r.PID)
	done := make(chan struct{})
	go func() {
		cmd.Wait() // the log says how it ended
		close(done)
	}()
	return r, done, nil
}

// alive tells whether the process of a record still runs.
func (r record) alive() bool {
	if r.PID <= 0 {
		return false
	}
	started, ok := startTime(r.PID)
	return ok && started == r.Started
}

// signal sends a signal to the process of a record, if it still runs.
func (r record) signal(s syscall.Signal) error {
	if !r.alive() {
		return nil
	}
	if err := syscall.Kill(r.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("testnet: signal %s to process %d of peer %d: %w", s, r.PID, r.Index, err)
	}
	return nil
}

// session is the processes that meshd and what it started are: all of the session that
// it was started in. Zombies are none.
func (r record) session() []int {
	if r.PID <= 0 {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil { // a system without /proc: meshd itself is all that can be seen
		if r.alive() {
			return []int{r.PID}
		}
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if sid, err := unix.Getsid(pid); err != nil || sid != r.PID {
			continue
		}
		if _, running := startTime(pid); running {
			pids = append(pids, pid)
		}
	}
	return pids
}

// startTime is when a process started, in the system's own terms; false where it does
// not run, zombies included.
func startTime(pid int) (string, bool) {
	s, ok := processState(pid)
	return s.started, ok
}

// process is what can be seen of one that runs.
type process struct {
	started string // in the system's own terms; empty where it has no /proc
	stopped bool   // by a signal
}

// processState looks at a process; false where it does not run, zombies included.
func processState(pid int) (process, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if _, err := os.Stat("/proc/self/stat"); err == nil {
			return process{}, false
		}
		return process{}, syscall.Kill(pid, 0) == nil
	}
	// The name, second, is in parentheses and may contain anything; state is field 3,
	// the start time field 22 (proc(5)).
	i := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	return process{started: fields[19], stopped: fields[0] == "T"}, true
}

// gone waits until no process of the record's session is left; what is left when ctx
// ends is in the error.
func (r record) gone(ctx context.Context) error {
	left := r.session()
	for len(left) > 0 {
		if err := pause(ctx); err != nil {
			return fmt.Errorf("testnet: processes %v of peer %d still run: %w", left, r.Index, err)
		}
		left = r.session()
	}
	return nil
}

// pause waits pollTime, or until ctx ends.
func pause(ctx context.Context) error {
	t := time.NewTimer(pollTime)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tailBytes is how much of a log is shown where a peer would not start.
const tailBytes = 1 << 10

// tail is the last lines of a log.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "no log: " + err.Error()
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > tailBytes {
		f.Seek(-tailBytes, io.SeekEnd)
	} else {
		f.Seek(0, io.SeekStart)
	}
	b, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return "no log: " + err.Error()
	}
	return strings.TrimSpace(string(b))
}
