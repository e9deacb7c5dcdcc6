package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Without meshd every command that needs it says so, with a status of its own.
func TestMeshdIsNotRunning(t *testing.T) {
	p := peer{home: filepath.Join(t.TempDir(), "home")}
	for _, typed := range []string{
		"status", "ls", "id", "peers", "doctor", "status x", "wait x", "watch x", "logs x", "get x -o -", "cancel x", "cat x",
		"add " + contract, "connect /ip4/127.0.0.1/tcp/1/p2p/12D3KooWELUQqPwNRLAdhKMUdr8p7okx62YXGZS9NKH2yL48AoCt",
		"submit --array 1 --map " + contract, "--json ls",
	} {
		r := p.run(t, strings.Fields(typed)...).want(t, 3, "meshd", p.home)
		if r.out != "" {
			t.Errorf("mesh %s printed %q", typed, r.out)
		}
	}
	p.run(t, "version").want(t, 0)
}

// A second meshd in the same home ends, and says which one is there.
func TestASecondMeshd(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir, "--slots", "0")
	second := launch(t, filepath.Join(bin, "meshd"), t.TempDir(), "--slots", "0", "--home", first.home)
	select {
	case <-second.gone:
	case <-time.After(patience):
		t.Fatal("the second meshd goes on")
	}
	said := read(t, second.log)
	if status := second.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(said, first.home) || !strings.Contains(said, "another meshd runs on this home") {
		t.Errorf("status %d: %s", status, said)
	}
	t.Log(said)
	if first.self(t).PID != first.cmd.Process.Pid {
		t.Error("the first meshd is not the one that answers")
	}
	first.stop(t)
	if status := first.cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("meshd ended with status %d: %s", status, first.tail())
	}
	start(t, dir, "--slots", "0") // the home is free again
}

// A full store says so and goes on serving what it has.
func TestTheQuotaIsPassed(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "--slots", "1", "--quota", "16MiB")
	small := write(t, filepath.Join(dir, "small"), "small\n")
	cid, _, _ := strings.Cut(p.ok(t, "add", small), " ")
	big := filepath.Join(dir, "big")
	noise := make([]byte, 0, 24<<20)
	for i := uint64(0); len(noise) < cap(noise); i++ {
		x := i * 0x9e3779b97f4a7c15
		noise = append(noise, byte(x>>56), byte(x>>48), byte(x>>40), byte(x>>32))
	}
	if err := os.WriteFile(big, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Log(p.run(t, "add", big).want(t, 1, "quota").err)
	t.Log(p.run(t, "submit", "--input", big, "--split", "bytes", "--map", contract+" cat", "-o", "-").want(t, 1, "quota").err)
	if got := p.ok(t, "cat", cid); got != "small\n" {
		t.Errorf("what was there before: %q", got)
	}
	if got := p.ok(t, "submit", "--array", "2", "--map", program("index"), "-o", "-"); got != "0\n1\n" {
		t.Errorf("a small job: %q", got)
	}
	if s := p.self(t); s.Stored > s.Quota {
		t.Errorf("%d bytes are stored of %d", s.Stored, s.Quota)
	}
}

// A chunk that the disk has spoilt is never given out: it comes from elsewhere, or not at
// all.
func TestASpoiltChunk(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("this must come back as it is\n", 10_000)
	file := write(t, filepath.Join(dir, "text"), text)
	one := start(t, dir, "--slots", "1")
	job := one.submit(t, "--input", file, "--split", "none", "--map", contract+" cat")
	one.wait(t, job)
	added, _, _ := strings.Cut(one.ok(t, "add", file), " ")
	one.stop(t)
	if n := spoil(t, filepath.Join(one.home, "chunks")); n == 0 {
		t.Fatal("no chunk was found to spoil")
	}
	one = start(t, dir, "--slots", "1")
	for _, args := range [][]string{{"get", job, "-o", "-"}, {"cat", added}} {
		if r := one.run(t, args...); r.status == 0 && r.out != text {
			t.Errorf("mesh %s gives %d spoilt bytes", args[0], len(r.out))
		} else if r.status != 0 {
			t.Log(r.err)
			if strings.Contains(text, r.out) == false {
				t.Errorf("mesh %s wrote wrong bytes before it failed", args[0])
			}
		}
	}
	two := start(t, t.TempDir(), "--slots", "0", "--bootstrap", one.address(t))
	eventually(t, "the peers know each other", func() bool { return one.self(t).Peers == 1 && two.self(t).Peers == 1 })
	again, _, _ := strings.Cut(two.ok(t, "add", file), " ")
	if again != added {
		t.Fatalf("%s and %s are one file", again, added)
	}
	if got := one.ok(t, "cat", added); got != text {
		t.Errorf("%d bytes, of %d, come from the other peer", len(got), len(text))
	}
	if got := one.ok(t, "submit", "--input", file, "--split", "none", "--map", contract+" cat", "-o", "-"); got != text {
		t.Errorf("a new job gives %d bytes", len(got))
	}
}

// spoil changes a byte in every chunk that has some of the text.
func spoil(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(data, []byte("come back as it is\nthis must"))
		if at < 0 || strings.HasSuffix(path, ".db") {
			return nil
		}
		n++
		data[at] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Peers of two meshes do not join, and both sides say why.
func TestAnotherMesh(t *testing.T) {
	m := network(t)
	p := start(t, t.TempDir(), "--slots", "0", "--mesh", "elsewhere", "--log-level", "debug")
	ours := m.peers[0].self(t).Mesh
	r := p.run(t, "connect", m.peers[0].address(t)).want(t, 1, ours, "--mesh")
	t.Log(r.err)
	if n := p.self(t).Peers; n != 0 {
		t.Errorf("it is connected to %d peers", n)
	}
	q := start(t, t.TempDir(), "--slots", "0", "--mesh", "elsewhere", "--bootstrap", m.peers[0].address(t))
	eventually(t, "each log names the other mesh", func() bool { return q.said(ours) && m.peers[0].said("elsewhere") })
}
