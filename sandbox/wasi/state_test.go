package wasi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func saved(t testing.TB, s *System) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.SaveState(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func stateIn(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// restored makes a system from a state, which may be a bad one.
func restored(t testing.TB, b []byte, change func(*Config)) (*System, error) {
	t.Helper()
	c := Config{Disk: 1 << 20, Deterministic: true, Scratch: filepath.Join(t.TempDir(), "scratch"), State: stateIn(t, b)}
	if change != nil {
		change(&c)
	}
	return New(c)
}

func (g *guest) save(path, text string) {
	g.t.Helper()
	fd, e := g.open(path, openCreate|openTruncate, readWrite)
	if e != 0 {
		g.t.Fatalf("open %s: error %d", path, e)
	}
	for len(text) > 0 {
		n := min(len(text), 1<<14)
		if e := g.write(fd, text[:n]); e != 0 {
			g.t.Fatalf("write %s: error %d", path, e)
		}
		text = text[n:]
	}
	g.call("fd_close", fd)
}

// full is a system with one of everything in /state, a large file and many directories deep included.
func full(t *testing.T) *System {
	s := newSystem(t, nil)
	g := newGuest(t, s)
	g.save("state/empty", "")
	g.save("state/small", "text")
	g.save("state/large", strings.Repeat("0123456789abcdef", 5000))
	path := "state"
	for range 30 {
		path += "/d"
		if e := g.call("path_create_directory", 3, path); e != 0 {
			t.Fatal(e)
		}
	}
	g.save(path+"/leaf", "leaf")
	copy(g.memory[500:], "../small")
	if e := g.call("path_symlink", 500, 8, 3, "state/d/link"); e != 0 {
		t.Fatal(e)
	}
	g.call("random_get", 0, 13)
	g.call("clock_time_get", 0, uint64(0), 0)
	return s
}

func TestStateComesBackWhole(t *testing.T) {
	s := full(t)
	b := saved(t, s)
	if s.Unsaved() {
		t.Error("it is not saved")
	}
	r, err := restored(t, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Unsaved() {
		t.Error("what was restored is not saved")
	}
	if again := saved(t, r); !bytes.Equal(again, b) {
		t.Errorf("it is another state then:\n%q\n%q", b, again)
	}
	if r.stateArea.used != s.stateArea.used || r.nodes != s.nodes || r.clock != s.clock {
		t.Errorf("%d bytes in %d nodes at %v, %d in %d at %v before", r.stateArea.used, r.nodes, r.clock, s.stateArea.used, s.nodes, s.clock)
	}
	a, c := newGuest(t, s), newGuest(t, r)
	for _, n := range []int{1, 8, 100, 5000} { // also beyond a block of the generator
		a.call("random_get", 0, n)
		c.call("random_get", 0, n)
		if !bytes.Equal(a.memory[:n], c.memory[:n]) {
			t.Fatalf("other random bytes after the state")
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(r.cfg.Scratch); len(left) != 0 {
		t.Errorf("%d scratch files are left", len(left))
	}
}

func TestRandomPositionIsKeptAtEachOffset(t *testing.T) {
	s := newSystem(t, nil)
	for i := range 1200 {
		r, err := restored(t, saved(t, s), nil)
		if err != nil {
			t.Fatalf("after %d bytes: %v", i, err)
		}
		a, _ := s.rng.MarshalBinary()
		b, _ := r.rng.MarshalBinary()
		if !bytes.Equal(a, b) {
			t.Fatalf("after %d bytes the random source is another", i)
		}
		_, _ = s.rng.Read(make([]byte, 1))
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSameStateIsTheSameBytes(t *testing.T) {
	one, other := newSystem(t, nil), newSystem(t, nil)
	g := newGuest(t, one)
	g.save("state/b", "b")
	g.save("state/a", "a")
	g = newGuest(t, other)
	g.save("state/x", "longer")
	g.save("state/x", "a")
	g.save("tmp/b", "b")
	g.call("path_rename", 3, "state/x", 3, "state/a")
	g.call("path_rename", 3, "tmp/b", 3, "state/b")
	if a, b := saved(t, one), saved(t, other); !bytes.Equal(a, b) {
		t.Errorf("%q\n%q", a, b)
	}
}

func TestUnsavedAndQuiet(t *testing.T) {
	told := 0
	s := newSystem(t, func(c *Config) { c.Unsaved = func() { told++ } })
	g := newGuest(t, s)
	g.save("tmp/x", "elsewhere")
	if s.Unsaved() || told != 0 || !s.Quiet() {
		t.Fatal("a change elsewhere counts")
	}
	fd, _ := g.open("state/f", openCreate, readWrite)
	if !s.Unsaved() || told != 1 || s.Quiet() {
		t.Fatal("an open file does not count")
	}
	g.call("path_unlink_file", 3, "state/f")
	if !s.Quiet() {
		t.Error("a file without a name counts")
	}
	g.call("fd_close", fd)
	saved(t, s)
	if s.Unsaved() {
		t.Error("saved and not")
	}
	for name, change := range map[string]func(){
		"mkdir":  func() { g.call("path_create_directory", 3, "state/d") },
		"rename": func() { g.call("path_rename", 3, "tmp/x", 3, "state/x") },
	} {
		if change(); !s.Unsaved() {
			t.Errorf("%s does not count", name)
		}
		saved(t, s)
	}
	fd, _ = g.open("state/x", 0, readWrite)
	if g.write(fd, "y"); !s.Unsaved() {
		t.Error("a write does not count")
	}
	saved(t, s)
	if g.call("fd_allocate", fd, uint64(0), uint64(100)); !s.Unsaved() {
		t.Error("an allocation does not count")
	}
}

func TestStateCountsAgainstTheDisk(t *testing.T) {
	s := newSystem(t, func(c *Config) { c.Disk = 10 })
	g := newGuest(t, s)
	g.save("tmp/a", "12345")
	fd, _ := g.open("state/b", openCreate, readWrite)
	if e := g.write(fd, "123456"); e != eNospc || s.Stopped() == nil || s.Stopped().Kind != StopDisk {
		t.Errorf("error %d, stop %+v", e, s.Stopped())
	}
}

// sealed gives a state a checksum that fits.
func sealed(b []byte) []byte {
	b = bytes.Clone(b)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func TestBadStatesAreRefused(t *testing.T) {
	good := saved(t, newSystem(t, nil))
	head := good[:len(good)-5] // without the end of the list and the checksum
	entry := func(kind byte, name string, more ...byte) []byte {
		return append(append([]byte{kind, byte(len(name))}, name...), more...)
	}
	file := func(name string) []byte { return entry(entryFile, name, make([]byte, 8)...) }
	cat := func(parts ...[]byte) []byte { return sealed(bytes.Join(append([][]byte{head}, parts...), nil)) }
	end := []byte{entryEnd}
	set := func(at int, b byte) []byte {
		c := bytes.Clone(good[:len(good)-4])
		c[at] = b
		return sealed(c)
	}
	if _, err := restored(t, cat(file("a"), file("b"), end), nil); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	huge := binary.LittleEndian.AppendUint64(nil, 1<<62)
	negative := binary.LittleEndian.AppendUint64(nil, math.MaxUint64)
	for name, b := range map[string][]byte{
		"nothing": nil, "magic": set(0, 'M'), "version": set(10, 2), "kind": set(12, 7), "other kind": set(12, stateReal),
		"clock": set(20, 0xff), "old clock": set(20, 0), "used": set(36, 0xff), "unread": set(69, 8), "unread bytes": set(70, 1),
		"parent": cat(file(".."), end), "self": cat(file("."), end), "slash": cat(file("a/b"), end), "root": cat(file("/"), end),
		"empty name": cat(file(""), end), "no UTF-8": cat(file("\xff"), end), "NUL": cat(file("a\x00"), end),
		"twice": cat(file("a"), file("a"), end), "order": cat(file("b"), file("a"), end),
		"huge file": cat(entry(entryFile, "a", huge...), end), "negative file": cat(entry(entryFile, "a", negative...), end),
		"unknown entry": cat(entry(9, "a"), end), "no end": cat(), "open directory": cat(entry(entryDir, "d"), end),
		"link to nowhere": cat(entry(entrySymlink, "l", 0, 0), end), "link with NUL": cat(entry(entrySymlink, "l", 1, 0, 0), end),
		"long link":     cat(entry(entrySymlink, "l", append([]byte{1, 4}, make([]byte, 1025)...)...), end),
		"more after it": append(bytes.Clone(good), 0),
	} {
		s, err := restored(t, b, nil)
		if !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
		if s != nil {
			t.Errorf("%s: there is a system", name)
		}
	}
}

func TestEachDamagedByteIsFound(t *testing.T) {
	good := saved(t, full(t))
	step := 1
	for i := 0; i < len(good); i += step {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		if _, err := restored(t, b, nil); !errors.Is(err, ErrState) {
			t.Errorf("byte %d: error %v", i, err)
		}
		if i > 300 {
			step = 1009 // the inside of the large file
		}
	}
	for i := 0; i < len(good); i += 1 + i/4 {
		if _, err := restored(t, good[:i], nil); !errors.Is(err, ErrState) {
			t.Errorf("cut off after %d bytes: error %v", i, err)
		}
	}
}

func TestStatesHaveLimits(t *testing.T) {
	good := saved(t, full(t))
	if int64(len(good)) > MaxState(1<<20) {
		t.Error("larger than the largest")
	}
	if MaxState(math.MaxInt64) != math.MaxInt64 {
		t.Error("the largest is not bounded")
	}
	if _, err := restored(t, good, func(c *Config) { c.Disk = 1000 }); !errors.Is(err, ErrState) {
		t.Errorf("no room: error %v", err)
	}
	if _, err := restored(t, good, func(c *Config) { c.Deterministic = false }); !errors.Is(err, ErrState) {
		t.Errorf("a real clock: error %v", err)
	}
	empty := saved(t, newSystem(t, nil))
	empty = empty[:len(empty)-5]
	deep, depth := bytes.Clone(empty), MaxNodes-10
	for range depth { // a path of 16 MB
		deep = append(append(deep, entryDir, MaxName), strings.Repeat("d", MaxName)...)
	}
	deep = sealed(append(deep, make([]byte, depth+1)...))
	r, err := restored(t, deep, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(saved(t, r), deep) {
		t.Error("a deep tree is another then")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	many := empty
	for i := range MaxNodes + 1 {
		many = append(many, entryDir, 7)
		many = fmt.Appendf(many, "%07d", i)
		many = append(many, entryEnd)
	}
	if _, err := restored(t, sealed(append(many, entryEnd)), nil); !errors.Is(err, ErrState) {
		t.Errorf("too many nodes: error %v", err)
	}
}

func TestStateOfARealClockHasNoPosition(t *testing.T) {
	real := func(c *Config) { c.Deterministic = false }
	s := newSystem(t, real)
	newGuest(t, s).save("state/a", "a")
	r, err := restored(t, saved(t, s), real)
	if err != nil {
		t.Fatal(err)
	}
	if _, e := newGuest(t, r).open("state/a", 0, rightRead); e != 0 {
		t.Errorf("error %d", e)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzState restores anything: what is taken must be the state that it is saved as, and within its limits.
func FuzzState(f *testing.F) {
	s, err := New(Config{Disk: 1 << 20, Deterministic: true})
	if err != nil {
		f.Fatal(err)
	}
	s.attach(s.state, "d", s.newNode(typeDirectory, s.stateArea))
	n := s.attach(s.state, "f", s.newNode(typeRegular, s.stateArea))
	n.content = &content{}
	s.writeAt(n.content, s.stateArea, []byte("text"), 0)
	s.attach(s.state, "l", s.newNode(typeSymlink, s.stateArea)).target = "f"
	_, _ = s.rng.Read(make([]byte, 3))
	good := saved(f, s)
	f.Add(good[:len(good)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = sealed(b)
		s, err := restored(t, b, func(c *Config) { c.Disk = 1000 })
		if err != nil {
			if !errors.Is(err, ErrState) {
				t.Fatal(err)
			}
			return
		}
		if s.stateArea.used > 1000 || s.nodes > MaxNodes {
			t.Errorf("%d bytes, %d nodes", s.stateArea.used, s.nodes)
		}
		if again := saved(t, s); !bytes.Equal(again, b) {
			t.Errorf("two forms of one state:\n%q\n%q", b, again)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
