package job

import (
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
)

func TestOutputName(t *testing.T) {
	for _, c := range []struct {
		pattern string
		index   protocol.TaskIndex
		count   uint64
		name    string
		want    string // or "error: " and a part of it
	}{
		{"", 0, 1, "", "00000.out"},
		{"", 7, 100_000, "", "00007.out"},
		{"", 7, 100_001, "", "000007.out"},
		{"{index}.png", 23, 24, "", "00023.png"},
		{"{name}", 0, 1, "a/b.tar.gz", "a/b.tar.gz"},
		{"{stem}.png", 0, 1, "a/b.tar.gz", "b.tar.png"},
		{"{dir}/{stem}-small{ext}", 0, 1, "a/b/c.jpg", "a/b/c-small.jpg"},
		{"{dir}/{stem}-small{ext}", 0, 1, "c.jpg", "c-small.jpg"},
		{"out/{dir}/{stem}", 0, 1, "c.jpg", "out/c"},
		{"{stem}{ext}", 0, 1, ".profile", ".profile"},
		{"{stem}.o", 0, 1, "Makefile", "Makefile.o"},
		{"all", 0, 3, "", "all"},
		{"a{b", 0, 1, "", "a{b"},
		{"{stem}.png", 3, 4, "", "error: task 3"},
		{"{name}", 3, 4, "", "error: use {index}"},
		{"{what}", 3, 4, "x", "error: {what} is none of"},
		{"{dir}", 0, 1, "c.jpg", "error: "},
		{"../{index}", 0, 1, "", "error: .."},
		{"/{index}", 0, 1, "", "error: "},
		{"{index}/", 0, 1, "", "error: "},
		{"{name}", 0, 1, "../../etc/passwd", "error: .."},
		{"x/{name}", 0, 1, "/etc/passwd", "error: "},
		{"{name}\x1b", 0, 1, "a", "error: "},
	} {
		got, err := OutputName(c.pattern, c.index, c.count, c.name)
		if part, fails := strings.CutPrefix(c.want, "error: "); fails {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%q of %q: %q, %v; want an error with %q", c.pattern, c.name, got, err, part)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q of %q: %q, %v; want %q", c.pattern, c.name, got, err, c.want)
		}
	}
}
