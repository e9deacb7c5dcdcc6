package wasi

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newSystem(t testing.TB, change func(*Config)) *System {
	t.Helper()
	c := Config{
		Args: []string{"program", "x"}, Env: []string{"A=b"},
		Disk: 1 << 20, Output: 1 << 20, Log: 1 << 10,
		Deterministic: true, Scratch: filepath.Join(t.TempDir(), "scratch"),
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// guest calls functions by name, as a program would, with strings put into its memory.
type guest struct {
	t      *testing.T
	s      *System
	memory []byte
	next   uint32
}

func newGuest(t *testing.T, s *System) *guest {
	return &guest{t: t, s: s, memory: make([]byte, 1<<17)}
}

func (g *guest) call(name string, args ...any) errno {
	g.t.Helper()
	var a []uint64
	g.next = 1 << 16
	for _, arg := range args {
		switch v := arg.(type) {
		case int:
			a = append(a, uint64(v))
		case uint64:
			a = append(a, v)
		case string:
			copy(g.memory[g.next:], v)
			a = append(a, uint64(g.next), uint64(len(v)))
			g.next += uint32(len(v))
		}
	}
	for _, f := range Functions() {
		if f.Name == name {
			if len(f.Params) != len(a) {
				g.t.Fatalf("%s has %d parameters, called with %d", name, len(f.Params), len(a))
			}
			return errno(g.s.Call(&f, g.memory, a))
		}
	}
	g.t.Fatalf("no function %s", name)
	return 0
}

func (g *guest) u32(at int) uint32 { return binary.LittleEndian.Uint32(g.memory[at:]) }

// open opens a path under the root with rights to read and write as asked.
func (g *guest) open(path string, flags int, rights uint64) (int, errno) {
	g.t.Helper()
	e := g.call("path_open", 3, 1, path, flags, rights, uint64(0), 0, 0)
	return int(g.u32(0)), e
}

func (g *guest) write(fd int, text string) errno {
	g.t.Helper()
	copy(g.memory[100:], text)
	binary.LittleEndian.PutUint32(g.memory[8:], 100)
	binary.LittleEndian.PutUint32(g.memory[12:], uint32(len(text)))
	return g.call("fd_write", fd, 8, 1, 16)
}

const readWrite = rightRead | rightWrite

func TestEveryFunctionIsThereOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Functions() {
		if seen[f.Name] || f.call == nil || strings.Trim(f.Params, "iI") != "" {
			t.Errorf("%+v", f)
		}
		seen[f.Name] = true
	}
	if len(seen) != 46 {
		t.Errorf("%d functions; WASI preview 1 has 46", len(seen))
	}
}

func TestAddressesOutsideOfMemoryAreFaults(t *testing.T) {
	g := newGuest(t, newSystem(t, nil))
	for _, c := range []struct {
		name string
		args []any
	}{
		{"args_get", []any{1 << 30, 0}},
		{"args_sizes_get", []any{0, 1<<17 - 3}},
		{"clock_time_get", []any{0, uint64(0), 0xffffffff}},
		{"random_get", []any{0, 0xffffffff}},
		{"fd_write", []any{1, 1 << 20, 1, 0}},
		{"fd_read", []any{0, 0xfffffff8, 1, 0}},
		{"fd_filestat_get", []any{3, 1<<17 - 63}},
		{"fd_fdstat_get", []any{3, 1<<17 - 23}},
		{"fd_readdir", []any{3, 0, 1 << 20, uint64(0), 0}},
		{"path_open", []any{3, 0, 1 << 20, 10, 0, uint64(0), uint64(0), 0, 0}},
		{"path_readlink", []any{3, 1 << 20, 10, 0, 0, 0}},
		{"poll_oneoff", []any{1 << 20, 0, 1, 0}},
		{"poll_oneoff", []any{0, 1 << 20, 1, 0}},
		{"poll_oneoff", []any{0, 0, 0xffffffff, 0}},
	} {
		if e := g.call(c.name, c.args...); e != eFault {
			t.Errorf("%s%v: error %d, want %d", c.name, c.args, e, eFault)
		}
	}
	if g.s.Stopped() != nil {
		t.Errorf("stopped: %+v", g.s.Stopped())
	}
}

func TestHighHalvesOfI32ArgumentsDoNotCount(t *testing.T) {
	g := newGuest(t, newSystem(t, nil))
	if e := g.call("fd_close", uint64(0xdead_0000_0003)); e != 0 {
		t.Errorf("error %d", e)
	}
	if e := g.call("fd_close", 3); e != eBadf {
		t.Errorf("closing twice: error %d", e)
	}
}

func TestDescriptorsAreLimitedAndTheLowestIsTaken(t *testing.T) {
	g := newGuest(t, newSystem(t, nil))
	for want := 4; want < MaxDescriptors; want++ {
		if fd, e := g.open("tmp", openDirectory, 0); e != 0 || fd != want {
			t.Fatalf("descriptor %d, error %d, want %d", fd, e, want)
		}
	}
	if _, e := g.open("tmp", openDirectory, 0); e != eMfile {
		t.Errorf("error %d", e)
	}
	g.call("fd_close", 7)
	if fd, e := g.open("tmp", openDirectory, 0); e != 0 || fd != 7 {
		t.Errorf("descriptor %d, error %d", fd, e)
	}
}

func TestNodesAreLimited(t *testing.T) {
	s := newSystem(t, nil)
	g := newGuest(t, s)
	s.nodes = MaxNodes
	if _, e := g.open("tmp/f", openCreate, readWrite); e != eNospc {
		t.Errorf("error %d", e)
	}
	if e := g.call("path_create_directory", 3, "out/d"); e != eNospc {
		t.Errorf("error %d", e)
	}
}

func TestPaths(t *testing.T) {
	g := newGuest(t, newSystem(t, nil))
	for path, want := range map[string]errno{
		"":                                eNoent,
		"/tmp":                            eNotcapable,
		"..":                              eNotcapable,
		"tmp/../../x":                     eNotcapable,
		"tmp/../in":                       0,
		"tmp/.":                           0,
		"tmp//":                           0,
		"tmp/missing":                     eNoent,
		"tmp/missing/..":                  eNoent,
		"a\x00b":                          eInval,
		"\xff":                            eIlseq,
		strings.Repeat("x", MaxName+1):    eNametoolong,
		strings.Repeat("x/", MaxPath/2+1): eNametoolong,
	} {
		if _, e := g.open(path, 0, rightRead); e != want {
			t.Errorf("%.40q: error %d, want %d", path, e, want)
		}
	}
}

// What Go asks for when it opens a file to read is more than it needs.
func TestGoReadsWhatCannotBeWritten(t *testing.T) {
	g := newGuest(t, newSystem(t, func(c *Config) { c.In = []File{{"a", []string{"wasi.go"}}} }))
	const rightDatasync, rightPathSetSize = 1 << 0, 1 << 19
	goReads := uint64(1<<29-1) &^ (rightDatasync | rightWrite | rightAlloc | rightPathSetSize) // syscall.openat of wasip1
	if _, e := g.open("in/a", 0, goReads); e != 0 {
		t.Errorf("to read: error %d", e)
	}
	if _, e := g.open("in/a", 0, goReads|rightWrite); e != eRofs {
		t.Errorf("to write: error %d, want %d", e, eRofs)
	}
}

func TestContentsMoveToTheHostAndBack(t *testing.T) {
	s := newSystem(t, nil)
	g := newGuest(t, s)
	fd, e := g.open("tmp/f", openCreate, readWrite)
	if e != 0 {
		t.Fatal(e)
	}
	if e := g.write(fd, strings.Repeat("a", InlineMax)); e != 0 || s.lastFile != 0 {
		t.Fatalf("error %d, %d host files for what fits in memory", e, s.lastFile)
	}
	if e := g.write(fd, "b"); e != 0 || s.lastFile != 1 {
		t.Fatalf("error %d, %d host files", e, s.lastFile)
	}
	g.memory[24] = 0
	binary.LittleEndian.PutUint32(g.memory[8:], 200)
	binary.LittleEndian.PutUint32(g.memory[12:], 10)
	if e := g.call("fd_pread", fd, 8, 1, uint64(InlineMax-2), 16); e != 0 || g.u32(16) != 3 || string(g.memory[200:203]) != "aab" {
		t.Errorf("error %d, %d bytes, %q", e, g.u32(16), g.memory[200:203])
	}
	if s.held != 0 || s.tmpArea.used != InlineMax+1 {
		t.Errorf("%d bytes in memory, %d in all", s.held, s.tmpArea.used)
	}
	if e := g.call("path_unlink_file", 3, "tmp/f"); e != 0 {
		t.Fatal(e)
	}
	if n := hostFiles(t, s); n != 1 {
		t.Errorf("%d host files of a file that is open", n)
	}
	if e := g.call("fd_close", fd); e != 0 {
		t.Fatal(e)
	}
	if n := hostFiles(t, s); n != 0 || s.tmpArea.used != 0 {
		t.Errorf("%d host files and %d bytes of a file that is gone", n, s.tmpArea.used)
	}
}

func hostFiles(t *testing.T, s *System) int {
	t.Helper()
	list, err := os.ReadDir(s.cfg.Scratch)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestMemoryHeldIsBounded(t *testing.T) {
	s := newSystem(t, func(c *Config) { c.Disk, c.Output = 1<<30, 1<<30 })
	g := newGuest(t, s)
	text := strings.Repeat("x", InlineMax)
	for i := range heldMax/InlineMax + 10 {
		fd, e := g.open("out/"+strings.Repeat("f", i%200+1)+strings.Repeat("g", i/200), openCreate, readWrite)
		if e != 0 {
			t.Fatal(e)
		}
		if e := g.write(fd, text); e != 0 {
			t.Fatal(e)
		}
		if e := g.call("fd_close", fd); e != 0 {
			t.Fatal(e)
		}
	}
	if s.held > heldMax || s.lastFile != 10 {
		t.Errorf("%d bytes in memory, %d host files", s.held, s.lastFile)
	}
}

func TestLimitsStopBeforeTheWrite(t *testing.T) {
	for name, stop := range map[string]StopKind{"tmp/f": StopDisk, "out/f": StopOutput} {
		s := newSystem(t, func(c *Config) {
			c.Disk, c.Output = 100, 100
			if stop == StopOutput {
				c.Disk = 1000
			}
		})
		g := newGuest(t, s)
		fd, e := g.open(name, openCreate, readWrite)
		if e != 0 {
			t.Fatal(e)
		}
		if e := g.write(fd, strings.Repeat("x", 100)); e != 0 || s.Stopped() != nil {
			t.Fatalf("%s: error %d, stop %+v at the limit", name, e, s.Stopped())
		}
		if e := g.write(fd, "x"); e != eNospc || s.Stopped() == nil || s.Stopped().Kind != stop {
			t.Errorf("%s: error %d, stop %+v beyond the limit", name, e, s.Stopped())
		}
	}
}

func TestSleepMovesTheClockAtOnce(t *testing.T) {
	s := newSystem(t, nil)
	g := newGuest(t, s)
	sub := g.memory[1000:]
	binary.LittleEndian.PutUint64(sub, 77)
	binary.LittleEndian.PutUint32(sub[16:], 1)
	binary.LittleEndian.PutUint64(sub[24:], 5e18)
	before := s.clock.mono
	if e := g.call("poll_oneoff", 1000, 2000, 1, 0); e != 0 || g.u32(0) != 1 || g.u32(2000) != 77 {
		t.Fatalf("error %d, %d events", e, g.u32(0))
	}
	if d := s.clock.mono - before; d != 5e18 {
		t.Errorf("the clock moved by %d", d)
	}
	for range 3 { // to the end of time and not beyond
		g.call("poll_oneoff", 1000, 2000, 1, 0)
	}
	if s.clock.mono != 1<<63-1 || s.clock.wall != 1<<63-1 {
		t.Errorf("clocks at %d and %d", s.clock.mono, s.clock.wall)
	}
}

// FuzzCalls makes any calls with any arguments on a memory with anything in it: nothing may panic, and the books must
// stay right.
func FuzzCalls(f *testing.F) {
	functions := Functions()
	f.Add([]byte{31, 3, 1, 0, 5, 1, 2, 2, 0, 0, 26, 4, 8, 1, 16}, []byte("tmp/f"))
	f.Add([]byte{36, 0, 1, 3, 0, 2, 34, 3, 0, 5, 3, 0, 4}, []byte("out/a\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, script, data []byte) {
		s := newSystem(t, func(c *Config) { c.In = []File{{"a", []string{"wasi.go"}}, {"d/b", []string{"errno.go"}}} })
		memory := make([]byte, 1<<12)
		copy(memory, data)
		for len(script) > 0 && s.Stopped() == nil {
			fn := &functions[int(script[0])%len(functions)]
			script = script[1:]
			args := make([]uint64, len(fn.Params))
			for i := range args {
				if len(script) > 0 {
					args[i] = uint64(int64(int8(script[0]))) // small numbers, and very large ones
					script = script[1:]
				}
			}
			s.Call(fn, memory, args)
		}
		if s.outArea.used < 0 || s.tmpArea.used < 0 || s.held < 0 || s.nodes < 0 {
			t.Errorf("books: out %d, tmp %d, held %d, nodes %d", s.outArea.used, s.tmpArea.used, s.held, s.nodes)
		}
		if _, err := s.Results(1000, 1<<20); err != nil {
			t.Error(err)
		}
	})
}
