package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/compute-mesh/mesh/"

// A rule names the packages of ours that the packages under a folder may import, and
// why not more. What no rule names may import nothing of ours.
type rule struct {
	folder string
	may    []string // folders; "*" is all
	why    string
}

// The first rule whose folder is a prefix holds.
var rules = []rule{
	{"protocol/protocoltest", []string{"protocol"}, "it makes values of protocol's types for tests"},
	{"protocol/insecure", []string{"protocol"}, "it replaces protocol's signatures in simulations"},
	{"protocol/pb", nil, "generated code is a leaf: domain types are converted at protocol's edge"},
	{"protocol", []string{"protocol/pb"}, "what goes over the wire knows nothing of who sends it"},
	{"job", []string{"protocol"}, "a manifest is data: it is planned without network, disk or clock"},
	{"market", []string{"job", "protocol"}, "the state machine is pure: the simulator runs the very same code"},
	{"dht", nil, "finding peers must not depend on what they do; node joins the two"},
	{"internal/vfs", []string{"internal/vfs"}, "what is durable goes through it, so it knows nothing of what is written"},
	{"chunkstore", []string{"internal/vfs"}, "chunks are bytes under a hash; what they are for is node's to know"},
	{"sandbox/guest", nil, "it is compiled into programs, and must be small there"},
	{"sandbox", nil, "a task sees files and limits, never the mesh"},
	{"node/api", []string{"protocol"}, "the client of the control API must stay small: cmd/mesh starts in milliseconds"},
	{"node", []string{"protocol", "job", "market", "dht", "chunkstore", "sandbox", "internal/vfs", "node"}, "node is the one place where the parts meet"},
	{"testnet/sim", []string{"protocol", "job", "market"}, "the simulator has nothing real but the machine"},
	{"testnet", []string{"node", "protocol"}, "a testnet starts processes and speaks to them as a user does"},
	{"cmd/meshd", []string{"node", "sandbox"}, "thin mains: flags, exit codes, printing"},
	{"cmd/mesh", []string{"node/api", "testnet", "job", "protocol"}, "a command line must start in milliseconds: no libp2p host, no engine"},
	{"bench", []string{"*"}, "benchmarks measure every layer"},
	{"examples", []string{"sandbox/guest"}, "programs for the sandbox are not part of the mesh"},
	{"internal/arch", nil, "it only reads"},
}

func ruleFor(folder string) (rule, bool) {
	for _, r := range rules {
		if folder == r.folder || strings.HasPrefix(folder, r.folder+"/") {
			return r, true
		}
	}
	return rule{}, false
}

func (r rule) allows(folder, target string) bool {
	if under(target, r.folder) && under(folder, r.folder) {
		return true
	}
	return slices.ContainsFunc(r.may, func(m string) bool { return m == "*" || under(target, m) })
}

func under(folder, root string) bool { return folder == root || strings.HasPrefix(folder, root+"/") }

// source is a parsed file of the repository.
type source struct {
	folder, name string
	test         bool
	set          *token.FileSet
	*ast.File
}

// sources is every Go file of the module but generated ones and test data.
func sources(t *testing.T) []source {
	t.Helper()
	list, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("only %d files found: the walk is wrong", len(list))
	}
	return list
}

var parsed = sync.OnceValues(func() ([]source, error) {
	root := filepath.Join("..", "..")
	var list []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "testdata" || n == "pb" || n == "bin" || p != root && strings.HasPrefix(n, ".") && n != ".." {
				return filepath.SkipDir
			}
			if p != root && hasModule(p) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		list = append(list, source{path.Dir(rel), rel, strings.HasSuffix(p, "_test.go"), set, f})
		return nil
	})
	return list, err
})

func hasModule(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "go.mod"))
	return err == nil && len(found) > 0
}

func TestImports(t *testing.T) {
	for _, f := range sources(t) {
		r, ok := ruleFor(f.folder)
		if !ok {
			t.Errorf("%s: package %s has no import rule: add one with its reason", f.name, f.folder)
			continue
		}
		if f.test {
			continue
		}
		for _, im := range f.Imports {
			target, ours := strings.CutPrefix(strings.Trim(im.Path.Value, `"`), module)
			if ours && !r.allows(f.folder, target) {
				t.Errorf("%s imports %s: %s may import %v only, since %s", f.name, target, r.folder, r.may, r.why)
			}
			if ours && (under(target, "protocol/insecure") || under(target, "protocol/protocoltest") || under(target, "internal/vfs/vfstest")) && !under(f.folder, "testnet/sim") && !under(f.folder, "protocol") {
				t.Errorf("%s imports %s: it is for simulations and tests, no meshd is built with it", f.name, target)
			}
		}
	}
}

// Names that say nothing of what is inside.
var emptyNames = []string{"util", "utils", "common", "helpers", "helper", "types", "model", "models", "manager", "misc", "base"}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	said := map[string]bool{}
	seen := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		seen[f.folder] = true
		said[f.folder] = said[f.folder] || f.Doc != nil && len(f.Doc.Text()) > 40
		if slices.Contains(emptyNames, f.Name.Name) {
			t.Errorf("%s: package %s: name it for what it holds", f.name, f.Name.Name)
		}
	}
	for folder := range seen {
		if !said[folder] {
			t.Errorf("package %s has no comment that says what it is, promises, and does not do", folder)
		}
	}
}

const (
	maxFileLines     = 500
	maxTestFileLines = 800
	maxFuncLines     = 70
)

func TestSizes(t *testing.T) {
	for _, f := range sources(t) {
		limit := maxFileLines
		if f.test {
			limit = maxTestFileLines
		}
		if n := f.set.Position(f.File.End()).Line; n > limit {
			t.Errorf("%s has %d lines, %d at most: would a reader rather have two?", f.name, n, limit)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || f.test {
				continue
			}
			if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxFuncLines {
				t.Errorf("%s: %s has %d lines, %d at most", f.name, fn.Name.Name, n, maxFuncLines)
			}
		}
	}
}

// TestNoInit: state that comes to be by importing can't be seen, tested or undone.
func TestNoInit(t *testing.T) {
	for _, f := range sources(t) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.name)
			}
		}
	}
}

// slow says why a test may sleep outside of eventually, between two looks at a condition, and of a benchmark of idleness.
var slow = map[string]string{
	"chunkstore/exchange_test.go": "a holder that drips is slow on purpose",
	"sandbox/lifecycle_test.go":   "a process without a test to fail looks at a file again and again",
	"testnet/e2e/chaos_test.go":   "when a fault comes is a part of the scenario",
}

// TestNoSleep: a test that sleeps is slow where it need not be and fails where it must
// not; wait for the condition. In a bubble of synctest a sleep costs nothing.
func TestNoSleep(t *testing.T) {
	for _, f := range sources(t) {
		if !f.test {
			continue
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			may := slow[f.name] != "" || fn.Name.Name == "eventually" || strings.HasPrefix(fn.Name.Name, "Benchmark") || imports(f, "testing/synctest")
			ast.Inspect(fn, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, ok := sel.X.(*ast.Ident)
				if !ok {
					return true
				}
				if x.Name == "time" && sel.Sel.Name == "Sleep" && !may {
					t.Errorf("%s: time.Sleep", f.set.Position(sel.Pos()))
				}
				if x.Name == "t" && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
					t.Errorf("%s: a skipped test proves nothing", f.set.Position(sel.Pos()))
				}
				return true
			})
		}
	}
}
