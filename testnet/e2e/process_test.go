package e2e

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// taskProcesses are the processes that the meshd of process pid runs tasks in.
func taskProcesses(t *testing.T, pid int) (tasks []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if bytes.Contains(command, []byte("\x00sandbox-child\x00")) && session(id) == pid {
			tasks = append(tasks, id)
		}
	}
	return tasks
}

// session is the session of a process that lives, zombies being none, else 0. Every meshd
// of these tests leads one.
func session(pid int) int {
	fields := stat("/proc/" + strconv.Itoa(pid))
	if len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	id, _ := strconv.Atoi(fields[3])
	return id
}

// computes tells whether a thread of a process uses or waits for a CPU: those of an idle
// one sleep.
func computes(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, _ := os.ReadDir(dir)
	for _, thread := range threads {
		if fields := stat(dir + thread.Name()); len(fields) > 0 && fields[0] == "R" {
			return true
		}
	}
	return false
}

// stat is the state, parent, group, session and more of a process or thread: proc(5).
func stat(dir string) []string {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // the name may contain anything
}

// signal sends a signal to a peer's meshd.
func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatalf("signal %s to %d: %v", s, pid, err)
	}
}
