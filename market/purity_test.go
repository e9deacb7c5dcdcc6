package market

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The machine is a function of its inputs: same inputs, same outputs, same bytes. This
// test reads the package's source for what would break that.

// allowedImports is what the package may import.
var allowedImports = map[string]bool{
	"bytes": true, "cmp": true, "crypto/sha256": true, "encoding/binary": true, "errors": true, "fmt": true,
	"hash": true, "iter": true, "maps": true, "math/bits": true, "slices": true, "sort": true, "strings": true,
	"time":                   true, // durations alone: see allowedTime
	"github.com/ipfs/go-cid": true,
	modulePath + "/job":      true,
	modulePath + "/protocol": true,
}

const modulePath = "github.com/compute-mesh/mesh"

var allowedTime = map[string]bool{
	"Duration": true, "Nanosecond": true, "Microsecond": true, "Millisecond": true, "Second": true, "Minute": true, "Hour": true, "Time": true,
}

// unordered is the functions that may range over a map, or take its keys, with the
// reason why the order in which they come does not show.
var unordered = map[string]string{
	"ledger.left":        "taking bits away commutes",
	"swarm.takenBack":    "setting bits commutes",
	"swarm.confirmedBy":  "what is added up is whole numbers",
	"swarm.loads":        "what is added up is whole numbers, by peer",
	"Machine.hungry":     "the least of all is kept",
	"Machine.newsDue":    "the least of all is kept",
	"share.tail":         "the greatest of all is kept",
	"swarm.letPagesGo":   "what is deleted is a map, gone through by its sorted keys",
	"sorted":             "the list is sorted by hash before it is returned",
	"sortedKeys":         "the keys are sorted before they are returned",
	"stage.sealNames":    "the names are sorted before they are returned",
	"swarm.settleOwed":   "what is deleted does not depend on what was before",
	"swarm.sealTick":     "the keys are sorted before they are looked at",
	"swarm.stageView":    "what is added up is whole numbers",
	"swarm.answer":       "the greatest of a total order are kept",
	"swarm.watchHolders": "what is copied to is a map, gone through by its sorted keys",
	"Machine.Running":    "what is returned is a map",
}

func TestPurity(t *testing.T) {
	fset := token.NewFileSet()
	files := parseSource(t, fset)
	info := typeCheck(t, fset, files)
	p := purity{T: t, fset: fset, info: info, used: map[string]bool{}}
	for _, f := range files {
		p.file(f)
	}
	for name := range unordered {
		if !p.used[name] {
			t.Errorf("%s ranges over no map any more: take it off the list of exceptions", name)
		}
	}
}

func parseSource(t *testing.T, fset *token.FileSet) []*ast.File {
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatalf("no source: %v", err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// typeCheck resolves the package against the compiled form of what it imports.
func typeCheck(t *testing.T, fset *token.FileSet, files []*ast.File) *types.Info {
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", ".")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	export := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		export[path] = file
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(export[path])
	})}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	if _, err := conf.Check(modulePath+"/market", fset, files, info); err != nil {
		t.Fatal(err)
	}
	return info
}

type purity struct {
	*testing.T
	fset *token.FileSet
	info *types.Info
	used map[string]bool
}

func (p *purity) fault(n ast.Node, why string, args ...any) {
	p.Errorf("%s: %s", p.fset.Position(n.Pos()), fmt.Sprintf(why, args...))
}

func (p *purity) file(f *ast.File) {
	for _, i := range f.Imports {
		if path, _ := strconv.Unquote(i.Path.Value); !allowedImports[path] {
			p.fault(i, "imports %s: market is pure, node joins it with clocks, sockets, disk and the other packages", path)
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := nameOf(d)
			if name == "init" {
				p.fault(d, "init: what a machine does follows from its Config alone")
			}
			ast.Inspect(d, func(n ast.Node) bool { p.node(name, n); return true })
		case *ast.GenDecl:
			if d.Tok == token.VAR {
				p.variables(d)
			}
			ast.Inspect(d, func(n ast.Node) bool { p.node("", n); return true })
		}
	}
}

// nameOf is a function's name, with its receiver's type before it.
func nameOf(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	return types.ExprString(typ) + "." + d.Name.Name
}

func (p *purity) variables(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		for _, name := range spec.(*ast.ValueSpec).Names {
			if name.Name == "_" {
				continue
			}
			if typ := p.info.Defs[name].Type(); !types.Identical(typ, types.Universe.Lookup("error").Type()) {
				p.fault(name, "variable %s of the package: two machines in one process would share it", name.Name)
			}
		}
	}
}

func (p *purity) node(in string, n ast.Node) {
	switch n := n.(type) {
	case *ast.GoStmt:
		p.fault(n, "starts a goroutine: one goroutine of node owns the machine")
	case *ast.SelectStmt:
		p.fault(n, "select: the order in which inputs come is the driver's")
	case *ast.SendStmt:
		p.fault(n, "sends on a channel: effects are returned by Ready")
	case *ast.ChanType:
		p.fault(n, "channel: inputs are given to Step, effects returned by Ready")
	case *ast.SelectorExpr:
		p.selector(in, n)
	case *ast.RangeStmt:
		switch typ := p.info.Types[n.X].Type.Underlying().(type) {
		case *types.Map:
			p.unordered(in, n, "ranges over a map")
		case *types.Chan:
			p.fault(n, "ranges over %v: inputs are given to Step", typ)
		}
	case ast.Expr:
		p.expr(n)
	}
}

// expr refuses every value of a floating type.
func (p *purity) expr(n ast.Expr) {
	if tv, ok := p.info.Types[n]; ok && tv.Type != nil {
		if b, ok := tv.Type.Underlying().(*types.Basic); ok && b.Info()&(types.IsFloat|types.IsComplex) != 0 {
			p.fault(n, "is of type %s: arm64 fuses multiplications and additions, so that two peers would compute differently; use integers", tv.Type)
		}
	}
}

func (p *purity) selector(in string, n *ast.SelectorExpr) {
	p.expr(n)
	obj := p.info.Uses[n.Sel]
	if obj == nil || obj.Pkg() == nil {
		return
	}
	if _, ok := n.X.(*ast.Ident); !ok || obj.Parent() != obj.Pkg().Scope() {
		return // a method or a field
	}
	switch obj.Pkg().Path() {
	case "time":
		if !allowedTime[obj.Name()] {
			p.fault(n, "time.%s: time comes in with Step, as an Instant", obj.Name())
		}
	case "maps":
		p.unordered(in, n, "takes the keys or values of a map by maps."+obj.Name())
	}
}

func (p *purity) unordered(in string, n ast.Node, what string) {
	if unordered[in] == "" {
		p.fault(n, "%s %s: its order differs from run to run; use sortedKeys, or say in this test why the order does not show", in, what)
	}
	p.used[in] = true
}
