package sandbox

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childFiles is how many host files a child may have open: wasi.MaxDescriptors, as many contents, and its own.
const childFiles = 4096

// restrict sets the limits that hold for the whole life of a child: no core dumps, so many open files.
func restrict() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	files.Max = min(files.Max, childFiles)
	files.Cur = files.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
}

// limitMemory bounds the writable private memory of the process. RLIMIT_AS would count address space that the engine
// reserves and never touches. A limit that cannot be set leaves those of the engine.
func limitMemory(bytes int64) {
	var data unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_DATA, &data) != nil {
		return
	}
	if cur := min(uint64(bytes), data.Max); cur != data.Cur {
		data.Cur = cur
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &data)
	}
}

// cpuTime is the user and system time of the process.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tie makes the kernel kill the child when the thread that starts it ends, and gives it a process group of its own, so
// that a terminal's interrupt does not reach it before its parent.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// killedBySystem reports whether a process was ended with a SIGKILL, which the kernel sends when memory has run out. The
// caller knows that it did not send one itself.
func killedBySystem(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
