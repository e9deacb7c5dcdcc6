package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// Input that can't be had is told by its name and the reason, and makes no job.
func TestInputThatCannotBeRead(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	jobs := p.ok(t, "ls")
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		input  string
		status int
		said   string
	}{
		{filepath.Join(dir, "missing"), 2, "there is no such file"},
		{loop, 1, "loop"},
		{"/proc/self/mem", 1, "/proc/self/mem"},
	} {
		r := p.run(t, "submit", "--input", test.input, "--map", contract+" cat", "-o", "-").want(t, test.status, test.said)
		t.Log(r.err)
	}
	t.Log(p.run(t, "add", filepath.Join(dir, "missing")).want(t, 2, "there is no such file").err)
	t.Log(p.run(t, "add", dir).want(t, 2, "is a directory").err)
	if now := p.ok(t, "ls"); strings.Count(now, "\n") != strings.Count(jobs, "\n") {
		t.Errorf("unreadable input made a job: %s", now)
	}
}

// Nothing to do is done at once.
func TestEmptyInput(t *testing.T) {
	p, dir := network(t).peers[2], t.TempDir()
	empty := write(t, filepath.Join(dir, "empty"), "")
	if err := os.Mkdir(filepath.Join(dir, "none"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--input", empty}, {"--args-from", empty}, {"--array", "0"}, {"--input", filepath.Join(dir, "none")},
		{"--input", dir, "--include", "*.nothing"}, {"--input", "-"},
	} {
		r := p.run(t, append([]string{"--json", "submit", "--map", contract + " cat", "-o", filepath.Join(dir, "out")}, args...)...).want(t, 0)
		if s := p.status(t, jobOf(t, r.out)); s.State != api.StateDone || s.Tasks != 0 || read(t, filepath.Join(dir, "out")) != "" {
			t.Errorf("%q: %+v", args, s)
		}
	}
}

// A directory's files keep their odd names; what no job can name is refused by name, with
// what could steer a terminal escaped.
func TestOddNames(t *testing.T) {
	p, dir := network(t).peers[3], t.TempDir()
	fine := []string{"-dash", "a b", "späße", "sub dir/{index}", "quote'\"", "日本"}
	for _, name := range fine {
		write(t, filepath.Join(dir, "fine", name), name)
	}
	out := filepath.Join(dir, "out")
	p.ok(t, "submit", "--input", filepath.Join(dir, "fine"), "--split", "file", "--map", contract+" cat", "-o", out+"/")
	for _, name := range fine {
		if got := read(t, filepath.Join(out, name)); got != name {
			t.Errorf("%q holds %q", name, got)
		}
	}
	for i, name := range []string{"new\nline", "esc\x1b[31m", "bad\xff", `back\slash`} {
		odd := filepath.Join(dir, "odd", string(rune('a'+i)))
		write(t, filepath.Join(odd, name), "x")
		r := p.run(t, "submit", "--input", odd, "--map", contract+" cat", "-o", "-").want(t, 2, "can't have this name", "--include")
		if strings.Contains(r.err, "\x1b") || strings.Contains(r.err, "\xff") {
			t.Errorf("%q is printed as it is: %q", name, r.err)
		}
		t.Log(r.err)
	}
}

// A file that is written to while it is imported makes no job.
func TestInputThatChanges(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	file := write(t, filepath.Join(dir, "growing"), strings.Repeat("line\n", 1<<20))
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		for err == nil {
			select {
			case <-stop:
				stopped <- f.Close()
				return
			case <-time.After(time.Millisecond):
				_, err = f.WriteString("another line\n")
			}
		}
		stopped <- err
	}()
	var jobs string
	var r result
	eventually(t, "a write meets the import", func() bool {
		jobs = p.ok(t, "ls")
		r = p.run(t, "submit", "--input", file, "--map", contract+" cat", "-o", filepath.Join(dir, "out"))
		return r.status != 0
	})
	t.Log(r.want(t, 1, "changed while being imported", "nothing was submitted").err)
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if now := p.ok(t, "ls"); strings.Count(now, "\n") != strings.Count(jobs, "\n") {
		t.Errorf("it made a job: %s", now)
	}
}

// What is not known is told within a bounded time.
func TestUnknownJobsAndFiles(t *testing.T) {
	p := network(t).peers[0]
	const nobody = "bafyreiceu6ptmikxqenvo2ojn2js2vrmp3easskahdcaa7a4rzx3au4geq"
	const nothing = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"
	for _, args := range [][]string{
		{"status", nobody}, {"wait", nobody}, {"watch", nobody}, {"get", nobody, "-o", "-"}, {"logs", nobody}, {"cancel", nobody},
		{"cat", nothing}, {"submit", "--input", nothing, "--map", contract + " cat", "-o", "-"},
		{"submit", "--array", "1", "--map", nothing, "-o", "-"},
	} {
		began := time.Now()
		r := p.run(t, args...).want(t, 1)
		if !strings.Contains(r.err, nobody) && !strings.Contains(r.err, nothing) {
			t.Errorf("mesh %s does not name it: %s", args[0], r.err)
		}
		t.Log(time.Since(began).Round(time.Millisecond), r.typed, r.err)
	}
	for _, args := range [][]string{{"status", "nonsense"}, {"cat", "nonsense"}, {"get", "../../etc", "-o", "-"}} {
		t.Log(p.run(t, args...).want(t, 2).err)
	}
	p.run(t, "status", nothing).want(t, 1, nothing) // a CID, and of no job
}
