package canonical

// graph is the values of a function that may be NaNs of arithmetic's making, and the variables that they are put into. Index
// 0 of each list is nothing.
type graph struct {
	nodes     []node
	variables []variable
	edges     []edge
	seen      []int32 // nodes whose bits are seen
}

// node is a value that an instruction leaves on the stack: the result of arithmetic or the content of a variable.
type node struct {
	end       int // of the instruction
	kind      kind
	canonical bool  // it has to be made canonical there
	variable  int32 // whose content it is, or 0
	next      int32 // another of the same variable
	edges     int32
}

// variable is a local, or what a select chooses from. If nothing but results of arithmetic is put into it, it is made
// canonical where it is read and seen. If it may also hold bits that are to be kept, then it cannot be told there what it
// holds, and if it is seen at all, results are made canonical before they are put into it.
type variable struct {
	kind  kind
	kept  bool // it may hold bits that are to be kept
	seen  bool // if kept: its bits are seen
	reads int32
	edges int32

	last    entry // what was put into it since the last label, if epoch is the current one
	epoch   int
	pending bool
}

// edge says that a node is put into a variable.
type edge struct {
	node, variable             int32
	nextOfNode, nextOfVariable int32
}

func (g *graph) reset() {
	g.nodes = append(g.nodes[:0], node{})
	g.variables = append(g.variables[:0], variable{})
	g.edges = append(g.edges[:0], edge{})
	g.seen = g.seen[:0]
}

func (g *graph) newVariable(k kind) int32 {
	g.variables = append(g.variables, variable{kind: k, kept: k == none})
	return int32(len(g.variables) - 1)
}

func (g *graph) newNode(end int, k kind, v int32) int32 {
	n := int32(len(g.nodes))
	x := node{end: end, kind: k, variable: v}
	if v != 0 {
		x.next, g.variables[v].reads = g.variables[v].reads, n
	}
	g.nodes = append(g.nodes, x)
	return n
}

func (g *graph) connect(n, v int32) {
	g.edges = append(g.edges, edge{n, v, g.nodes[n].edges, g.variables[v].edges})
	g.nodes[n].edges = int32(len(g.edges) - 1)
	g.variables[v].edges = int32(len(g.edges) - 1)
}

// see notes that the bits of a node, or of one with its sign changed, are seen.
func (g *graph) see(n int32) {
	if n != 0 {
		g.seen = append(g.seen, n)
	}
}

// solve finds out which nodes have to be made canonical. Each variable is handled once in each direction.
func (g *graph) solve() {
	g.spread()
	for len(g.seen) > 0 {
		n := &g.nodes[g.seen[len(g.seen)-1]]
		g.seen = g.seen[:len(g.seen)-1]
		v := &g.variables[n.variable]
		if n.variable == 0 || !v.kept && v.edges != 0 {
			n.canonical = true
			continue
		}
		if v.seen {
			continue
		}
		v.seen = true
		for e := v.edges; e != 0; e = g.edges[e].nextOfVariable {
			g.see(g.edges[e].node)
		}
	}
}

// spread hands on that a variable may hold bits that are to be kept to those that it is copied to.
func (g *graph) spread() {
	var work []int32
	for v := range g.variables {
		if g.variables[v].kept {
			work = append(work, int32(v))
		}
	}
	for len(work) > 0 {
		v := work[len(work)-1]
		work = work[:len(work)-1]
		for n := g.variables[v].reads; n != 0; n = g.nodes[n].next {
			for e := g.nodes[n].edges; e != 0; e = g.edges[e].nextOfNode {
				if to := &g.variables[g.edges[e].variable]; !to.kept {
					to.kept = true
					work = append(work, g.edges[e].variable)
				}
			}
		}
	}
}
