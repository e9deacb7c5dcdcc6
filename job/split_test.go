package job

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSplitArgs(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{" \t\n", nil},
		{"P.wasm -a  b", []string{"P.wasm", "-a", "b"}},
		{`P.wasm 'a b' "c d"`, []string{"P.wasm", "a b", "c d"}},
		{`a'b'"c"d`, []string{"abcd"}},
		{`'' ""`, []string{"", ""}},
		{`a\ b \'`, []string{"a b", "'"}},
		{`"a\"b\\c\$d\e"`, []string{`a"b\c$d\e`}},
		{`'a\b'`, []string{`a\b`}},
		{"a\\\nb \"c\\\nd\"", []string{"ab", "cd"}},
		{`a #b c#d`, []string{"a", "#b", "c#d"}},
		{`$HOME *.go ~ {1} a;b`, []string{"$HOME", "*.go", "~", "{1}", "a;b"}},
		{"grüße '日本'", []string{"grüße", "日本"}},
		{"a\u00a0b", []string{"a\u00a0b"}},
	} {
		got, err := SplitArgs(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for in, part := range map[string]string{
		`a 'b`:   "not closed",
		`a "b\"`: "not closed",
		`a\`:     "backslash",
		"a\x00":  "zero byte",
		"\xff":   "UTF-8",
	} {
		if got, err := SplitArgs(in); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %q, %v; want an error with %q", in, got, err, part)
		}
	}
}

// A real shell is the oracle, over what is special to word splitting alone.
func TestSplitArgsAsTheShellDoes(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal("the mesh runs on systems with a POSIX shell: ", err)
	}
	rapid.Check(t, func(r *rapid.T) {
		command := "x " + rapid.StringMatching(`[ab \t\n'"\\.]{0,24}`).Draw(r, "command")
		if _, err := SplitArgs(command); err != nil {
			return
		}
		command = strings.ReplaceAll(command, "\n", " ")
		words, err := SplitArgs(command)
		if err != nil {
			return
		}
		out, err := exec.Command(sh, "-c", `printf '%s\0' `+command).Output()
		if err != nil {
			r.Fatalf("%q: sh: %v", command, err)
		}
		if want := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(words, want) {
			r.Fatalf("%q: %q, sh has %q", command, words, want)
		}
	})
}

func TestSplitArgsUndoesQuoting(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		want := rapid.SliceOf(rapid.StringMatching(`[ -~é\t\n]{0,10}`)).Draw(r, "words")
		var quoted []string
		for _, w := range want {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		got, err := SplitArgs(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(got, want) {
			r.Fatalf("%q: %q, %v", want, got, err)
		}
	})
}
