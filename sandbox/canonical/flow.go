package canonical

import "sort"

// flow follows the values of one function after another: where each comes from, and where its bits are seen. It interprets
// the code once, with an entry for each value on the stack. Values on the stack and in locals are followed exactly from
// one label to the next; a local is followed beyond labels as one variable, whatever the paths.
type flow struct {
	module *module
	graph

	groups  []group // locals of one type
	ofLocal map[uint32]int32
	stack   []entry
	frames  []frame
	dead    int         // blocks that are open and cannot be reached, since a branch before them
	epoch   int         // counts stretches without a label
	selects []selection // in the order of the code
	pending []int32
	failed  bool
}

// entry is a value: the node that made it, if it may be a NaN that has to be made canonical, and whether its bits are to be
// kept as they are. Both is a result with its sign changed; neither is certainly not a NaN.
type entry struct {
	node int32
	kept bool
	typ  byte // of a float or vector; 0: an integer, a reference, or not known
}

// frame is a block.
type frame struct {
	height          int    // of the stack below it and its parameters
	params, results []byte // types
	loop            bool
}

type group struct {
	end  uint32 // index of the first local behind it
	kind byte   // type of value
}

const (
	emptyBlock = -64 // type of a block without results

	typeI32  = 0x7f
	typeF32  = 0x7d
	typeF64  = 0x7c
	typeV128 = 0x7b

	// maxStack is the most values on a function's stack. A compiler's code has dozens, but a call of two bytes may leave
	// maxValues; 8 MiB of entries.
	maxStack = 1 << 20
)

func (f *flow) reset(t functionType) {
	f.graph.reset()
	f.groups, f.stack, f.frames, f.pending = f.groups[:0], f.stack[:0], f.frames[:0], f.pending[:0]
	f.ofLocal = make(map[uint32]int32)
	f.dead, f.epoch, f.failed, f.selects = 0, 1, false, f.selects[:0]
	for i, kind := range t.params {
		f.declare(1, kind)
		if v := f.variable(uint32(i)); v != 0 {
			f.variables[v].kept = true
		}
	}
	f.frames = append(f.frames, frame{results: t.results})
}

// declare adds count locals.
func (f *flow) declare(count uint64, kind byte) {
	f.groups = append(f.groups, group{uint32(min(uint64(f.locals())+count, maxLocals+1)), kind})
}

func (f *flow) locals() uint32 {
	if len(f.groups) == 0 {
		return 0
	}
	return f.groups[len(f.groups)-1].end
}

// left is the type of what a plain instruction leaves.
func (f *flow) left(i instruction) byte {
	if i.act == plain && i.global && int64(i.n) < int64(len(f.module.globals)) {
		return f.module.globals[i.n]
	}
	return i.leaves
}

// typeOfLocal is a local's, if it is a float or a vector.
func (f *flow) typeOfLocal(local uint32) byte {
	g := sort.Search(len(f.groups), func(i int) bool { return f.groups[i].end > local })
	if g == len(f.groups) || !seesType(f.groups[g].kind) {
		return 0
	}
	return f.groups[g].kind
}

// variable is a local's, or 0 if it cannot hold a NaN. A vector has no kind: it is seen where it is read behind a label.
func (f *flow) variable(local uint32) int32 {
	g := sort.Search(len(f.groups), func(i int) bool { return f.groups[i].end > local })
	if g == len(f.groups) {
		f.failed = true
		return 0
	}
	k := none
	switch f.groups[g].kind {
	case typeF32:
		k = f32
	case typeF64:
		k = f64
	case typeV128:
	default:
		return 0
	}
	v, ok := f.ofLocal[local]
	if !ok {
		v = f.newVariable(k)
		f.ofLocal[local] = v
	}
	return v
}

func (f *flow) push(e entry) {
	if len(f.stack) >= maxStack {
		f.failed = true
		return
	}
	f.stack = append(f.stack, e)
}

func (f *flow) pop() entry {
	if len(f.frames) == 0 || len(f.stack) <= f.frames[len(f.frames)-1].height {
		f.failed = true
		return entry{}
	}
	e := f.stack[len(f.stack)-1]
	f.stack = f.stack[:len(f.stack)-1]
	return e
}

// keep pushes values of these types whose bits are to be kept.
func (f *flow) keep(types ...byte) {
	for _, t := range types {
		e := entry{kept: true}
		if seesType(t) {
			e.typ = t
		}
		f.push(e)
	}
}

// show takes n values whose bits are seen.
func (f *flow) show(n int) {
	for range n {
		f.see(f.pop().node)
	}
}

// settle makes what was put into locals since the last label known behind the next one. It is needed where a path divides or
// joins others, since what is put into them later does not replace it on all paths.
func (f *flow) settle() {
	for _, v := range f.pending {
		x := &f.variables[v]
		x.pending = false
		x.kept = x.kept || x.last.kept
		if x.last.node != 0 {
			f.connect(x.last.node, v)
		}
	}
	f.pending = f.pending[:0]
}

// label is a place to which several paths lead.
func (f *flow) label() {
	f.settle()
	f.epoch++
}

func (f *flow) set(local uint32, e entry) {
	v := f.variable(local)
	if v == 0 {
		return
	}
	x := &f.variables[v]
	x.last, x.epoch = e, f.epoch
	if !x.pending {
		x.pending = true
		f.pending = append(f.pending, v)
	}
}

func (f *flow) get(local uint32, end int) entry {
	v := f.variable(local)
	if v == 0 {
		return entry{kept: true}
	}
	x := &f.variables[v]
	if x.epoch == f.epoch {
		return x.last
	}
	return entry{node: f.newNode(end, x.kind, v)}
}

// follow reads the code of a function up to its end, and reports whether that was possible.
func (f *flow) follow(r *reader) bool {
	size := len(r.b)
	for len(r.b) > 0 && !r.failed && !f.failed && len(f.frames) > 0 {
		start := size - len(r.b)
		i := r.instruction()
		end := size - len(r.b)
		if f.dead > 0 && f.skip(i) {
			continue
		}
		switch i.act {
		case plain:
			f.show(i.takes)
			for range i.gives {
				f.keep(f.left(i))
			}
		case computes:
			f.compute(i, end)
		case turns:
			e := f.pop()
			e.kept = e.kept || e.node != 0
			f.push(e)
		case drops:
			f.pop()
		case chooses:
			f.choose(i, start, end)
		case getsLocal:
			e := f.get(i.n, end)
			e.typ = f.typeOfLocal(i.n)
			f.push(e)
		case setsLocal:
			f.set(i.n, f.pop())
		case teesLocal:
			e := f.pop()
			f.set(i.n, e)
			e.typ = f.typeOfLocal(i.n)
			f.push(e)
		case calls, callsIndirect:
			f.call(i)
		default:
			f.control(i)
		}
	}
	return len(r.b) == 0 && !r.failed && !f.failed && len(f.frames) == 0
}

// skip passes over an instruction that cannot be reached. It reports false for one where code can be reached again.
func (f *flow) skip(i instruction) bool {
	switch i.act {
	case opens, loops, opensIf:
		f.dead++
	case turnsElse:
		return f.dead > 1
	case ends:
		if f.dead > 1 {
			f.dead--
			return true
		}
		return false
	}
	return true
}

func (f *flow) compute(i instruction, end int) {
	for range i.takes {
		if n := f.pop().node; n != 0 && f.nodes[n].kind != i.in { // lanes of another kind
			f.see(n)
		}
	}
	e := entry{typ: i.leaves}
	if i.out != none {
		e.node = f.newNode(end, i.out, 0)
	}
	f.push(e)
}

// choose treats a selection between scalars as a variable that both are put into.
func (f *flow) choose(i instruction, start, end int) {
	f.pop()
	a, b := f.pop(), f.pop()
	t := max(i.leaves, a.typ, b.typ) // one of them is known, and they are the same
	if f.module.branching && seesType(t) {
		f.selects = append(f.selects, selection{start, end, t})
	}
	k := max(f.nodes[a.node].kind, f.nodes[b.node].kind)
	if k != f32 && k != f64 {
		f.see(a.node)
		f.see(b.node)
		f.push(entry{kept: a.kept || b.kept || k != none, typ: t})
		return
	}
	v := f.newVariable(k)
	f.variables[v].kept = a.kept || b.kept
	for _, e := range []entry{a, b} {
		if e.node != 0 {
			f.connect(e.node, v)
		}
	}
	f.push(entry{node: f.newNode(end, k, v), typ: t})
}

func (f *flow) call(i instruction) {
	t, ok := f.module.function(i.n)
	if i.act == callsIndirect {
		f.pop()
		t, ok = f.module.typed(i.n)
	}
	if !ok {
		f.failed = true
		return
	}
	f.show(len(t.params))
	f.keep(t.results...)
}

func (f *flow) control(i instruction) {
	switch i.act {
	case opens:
		f.open(i.block, false)
	case loops:
		f.open(i.block, true)
		f.label()
	case opensIf:
		f.pop()
		f.open(i.block, false)
		f.settle()
	case turnsElse, ends:
		f.end(i.act)
	case branchesIf:
		f.pop()
		types := f.carries(i.n)
		f.show(len(types))
		f.keep(types...)
		f.settle()
	case branchesTable:
		f.pop()
		f.leave(len(f.carries(i.n)))
	case branches:
		f.leave(len(f.carries(i.n)))
	case returns:
		f.leave(len(f.frames[0].results))
	case stops:
		f.leave(0)
	}
}

// leave takes n values elsewhere; what follows cannot be reached.
func (f *flow) leave(n int) {
	f.show(n)
	f.dead = 1
}

// carries is the types of the values that a branch to a label takes.
func (f *flow) carries(label uint32) []byte {
	if int64(label) >= int64(len(f.frames)) {
		f.failed = true
		return nil
	}
	to := f.frames[len(f.frames)-1-int(label)]
	if to.loop {
		return to.params
	}
	return to.results
}

// open enters a block; its type is the index of a function's type, or negative: one result or none.
func (f *flow) open(block int64, loop bool) {
	b := frame{loop: loop}
	switch {
	case block >= 0:
		t, ok := f.module.typed(uint32(block))
		f.failed = f.failed || !ok
		b.params, b.results = t.params, t.results
	case block != emptyBlock:
		b.results = []byte{byte(block & 0x7f)}
	}
	f.show(len(b.params))
	b.height = len(f.stack)
	f.frames = append(f.frames, b)
	f.keep(b.params...)
}

// end is the end of a block, or of the first branch of an "if".
func (f *flow) end(how act) {
	b := f.frames[len(f.frames)-1]
	if f.dead == 0 {
		f.show(len(b.results))
	}
	f.dead = 0
	f.label()
	f.stack = f.stack[:b.height]
	if how == turnsElse {
		f.keep(b.params...)
		return
	}
	f.frames = f.frames[:len(f.frames)-1]
	f.keep(b.results...)
}
