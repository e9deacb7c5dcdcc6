package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// hertz is the unit of times in /proc, the same on every Linux.
const hertz = 100

// A reading is what something took.
type reading struct {
	wall   time.Duration
	cpu    float64 // seconds of the daemons, of their children, and of the clients
	others float64 // cores that the rest of the machine was using meanwhile
}

// measure takes the time of f. Daemons are the roots of the process trees that work for it; clients are processes that
// f starts and waits for.
func measure(daemons []int, f func() error) (reading, error) {
	cpu, busy, began := treesCPU(daemons)+childrenCPU(), machineCPU(), time.Now()
	err := f()
	wall := time.Since(began)
	r := reading{wall: wall, cpu: treesCPU(daemons) + childrenCPU() - cpu}
	r.others = max(0, machineCPU()-busy-r.cpu) / wall.Seconds()
	return r, err
}

// childrenCPU is the CPU time of all processes that this one has waited for.
func childrenCPU() float64 { return processCPU(syscall.RUSAGE_CHILDREN) }

// processCPU is the CPU time of this process (RUSAGE_SELF), or of those that it has waited for.
func processCPU(who int) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// machineCPU is the CPU time of everything on the machine.
func machineCPU() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	sum := 0.0
	for i, f := range strings.Fields(string(line)) {
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			n, _ := strconv.ParseFloat(f, 64)
			sum += n
		}
	}
	return sum / hertz
}

// treesCPU is the CPU time of processes, of all below them, and of those below that have ended.
func treesCPU(roots []int) float64 {
	sum := 0.0
	for _, p := range trees(roots) {
		for _, f := range statFields(p, 11, 15) { // utime, stime, and those of children that were waited for
			n, _ := strconv.ParseFloat(f, 64)
			sum += n
		}
	}
	return sum / hertz
}

// statFields are fields [from, to) of /proc/PID/stat behind the command name, state being 0; none where the process
// has ended.
func statFields(pid, from, to int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < to {
		return nil
	}
	return f[from:to]
}

// trees are processes and all below them.
func trees(roots []int) []int {
	children := make(map[int][]int)
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range list {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if f := statFields(pid, 1, 2); f != nil {
			parent, _ := strconv.Atoi(f[0])
			children[parent] = append(children[parent], pid)
		}
	}
	all := append([]int(nil), roots...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// memory is the sum of a line of a file in /proc/PID, in bytes, over processes.
func memory(pids []int, file, line string) float64 {
	sum := 0.0
	for _, p := range pids {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p, file))
		for l := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(l, line+":"); ok {
				n, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
				sum += n * 1024
			}
		}
	}
	return sum
}

// largest is the most memory that any of some processes ever had.
func largest(pids []int) (most float64) {
	for _, p := range pids {
		most = max(most, memory([]int{p}, "status", "VmHWM"))
	}
	return most
}

func resident(pids []int) float64     { return memory(pids, "status", "VmRSS") }
func proportional(pids []int) float64 { return memory(pids, "smaps_rollup", "Pss") }

// A watcher notes the most memory that each process below some roots ever had.
type watcher struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	most map[string]float64 // by name of the program
}

// watchInterval is far less than a task takes: the kernel keeps the maximum, it has to be read before the end alone.
const watchInterval = 100 * time.Millisecond

func watch(ctx context.Context, roots []int) *watcher {
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{stop: stop, most: make(map[string]float64)}
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		self := os.Getpid()
		for tick := time.NewTicker(watchInterval); ; {
			for _, p := range trees(append(roots[:len(roots):len(roots)], self)) {
				if p != self {
					w.note(p)
				}
			}
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	return w
}

func (w *watcher) note(pid int) {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(args) == 0 {
		return
	}
	list := strings.Split(string(args), "\x00")
	name := filepath.Base(list[0])
	if name == "meshd" && !strings.HasPrefix(list[1], "-") {
		name = "task process" // meshd, started by meshd to run tasks in
	}
	w.most[name] = max(w.most[name], memory([]int{pid}, "status", "VmHWM"))
}

// end returns the most memory of any one process, by program.
func (w *watcher) end() map[string]float64 {
	w.stop()
	w.wg.Wait()
	return w.most
}
