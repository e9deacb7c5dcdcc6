package arch

import (
	"bytes"
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// untested says of a package without tests where its faults would show.
var untested = map[string]string{
	"protocol/pb":           "generated; make check compares it with its source",
	"protocol/insecure":     "every simulation stands on it",
	"protocol/protocoltest": "every property test draws from it",
	"examples":              "programs that the sandbox's tests and testnet/e2e run",
	"sandbox/guest":         "compiled for the sandbox, whose tests run it there",
}

func TestEveryPackageIsTested(t *testing.T) {
	tested := map[string]bool{}
	list := sources(t)
	for _, f := range list {
		tested[f.folder] = tested[f.folder] || f.test
	}
	for folder := range untested {
		tested[folder] = true
	}
	for folder := range tested {
		if !tested[folder] && !tested[path.Dir(folder)] {
			t.Errorf("package %s has no tests", folder)
		}
	}
}

// calls runs f for every call of a function of a package, as written: fmt.Println.
func (s source) calls(f func(name string, c *ast.CallExpr)) {
	ast.Inspect(s.File, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Obj == nil {
					f(x.Name+"."+sel.Sel.Name, c)
				}
			}
		}
		return true
	})
}

// TestErrorsAreLowerCase: an error is the end of somebody else's sentence.
func TestErrorsAreLowerCase(t *testing.T) {
	for _, f := range sources(t) {
		f.calls(func(name string, c *ast.CallExpr) {
			if name != "errors.New" && name != "fmt.Errorf" || len(c.Args) == 0 {
				return
			}
			lit, ok := c.Args[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING || f.test {
				return
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatalf("%s: %v", f.set.Position(lit.Pos()), err)
			}
			r := []rune(text)
			if len(r) > 1 && unicode.IsUpper(r[0]) && unicode.IsLower(r[1]) || strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "..") || strings.HasSuffix(text, "\n") {
				t.Errorf("%s: error %q: want lower case, without full stop", f.set.Position(lit.Pos()), text)
			}
		})
	}
}

// TestOnlyMainsPrintAndExit: a package that prints or ends the process can't be used by another program, or a test.
func TestOnlyMainsPrintAndExit(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || f.Name.Name == "main" || f.name == "sandbox/child.go" { // which is the main of a task's process
			continue
		}
		f.calls(func(name string, c *ast.CallExpr) {
			if slices.Contains([]string{"fmt.Print", "fmt.Printf", "fmt.Println", "os.Exit"}, name) || strings.HasPrefix(name, "log.") && imports(f, "log") {
				t.Errorf("%s: %s is for package main", f.set.Position(c.Pos()), name)
			}
		})
	}
}

func imports(f source, what string) bool {
	return slices.ContainsFunc(f.Imports, func(im *ast.ImportSpec) bool { return im.Path.Value == strconv.Quote(what) })
}

// texts calls f for every text file of the repository.
func texts(t *testing.T, f func(name string, text []byte)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == ".git" || n == "testdata" || p == filepath.Join(root, "bin") || p == filepath.Join(root, "bench", "out") {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || d.Name() == ".git" { // of a work tree, a file that says where its repository is
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if len(b) > 4<<20 || bytes.IndexByte(b, 0) >= 0 {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f(filepath.ToSlash(rel), b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// named are the tests and the scripts that a document names.
var named = regexp.MustCompile("`((?:Test|Fuzz)\\w+|[a-z/]+/testdata/\\w+\\.txt)`")

// TestGuaranteesNameTheirTests: a promise whose test has gone, or was renamed, is a promise that nobody keeps.
func TestGuaranteesNameTheirTests(t *testing.T) {
	there := map[string]bool{}
	for _, f := range sources(t) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				there[fn.Name.Name] = true
			}
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := named.FindAllSubmatch(text, -1)
	for _, m := range found {
		name := string(m[1])
		if _, err := os.Stat(filepath.Join("..", "..", name)); !there[name] && err != nil {
			t.Errorf("docs/guarantees.md names %s, which is not there", name)
		}
	}
	if len(found) < 50 {
		t.Errorf("docs/guarantees.md names %d tests alone", len(found))
	}
}

// somebodysMachine is a path that exists on one machine only.
var somebodysMachine = regexp.MustCompile(`(?m)(?:^|[\s"'=(])(/(?:home|Users|root|work|mnt)/[\w.-]{2,})`)

// TestNoPathsOfOneMachine: what is written for one desk is of no use on another.
func TestNoPathsOfOneMachine(t *testing.T) {
	texts(t, func(name string, text []byte) {
		for _, m := range somebodysMachine.FindAllSubmatch(text, -1) {
			t.Errorf("%s: %s is a path of somebody's machine", name, m[1])
		}
	})
}

var (
	link   = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	target = regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)")
)

// TestDocumentsPointAtWhatIsThere: links between documents lead to files, and what they say to make can be made.
func TestDocumentsPointAtWhatIsThere(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	texts(t, func(name string, text []byte) {
		if !strings.HasSuffix(name, ".md") {
			return
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			to := string(m[1])
			if strings.Contains(to, "://") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join("..", "..", path.Dir(name), to)); err != nil {
				t.Errorf("%s: link to %s: %v", name, to, err)
			}
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			if !bytes.Contains(makefile, []byte("\n"+string(m[1])+":")) {
				t.Errorf("%s: the Makefile has no target %s", name, m[1])
			}
		}
	})
	if links < 10 {
		t.Errorf("only %d links found: the search is wrong", links)
	}
}
