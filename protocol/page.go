package protocol

import "github.com/ipfs/go-cid"

// MaxInline is the largest output, in bytes, that is kept inside a page and, once
// sealed, inside a pack: 4 KiB. Larger ones are files of their own. With BlockSize
// results a block's packs stay under 4 MiB.
const MaxInline = 4 << 10

// Output is what a task wrote: small ones as bytes, larger ones as a file's root.
type Output struct {
	Root   cid.Cid // cid.Undef where Inline holds the bytes
	Size   uint64
	Inline []byte
}

// File is a file that a task wrote to /out/.
type File struct {
	Name string // relative, slash-separated, checked by ValidName
	Output
}

// Result is how one task ended: what its seal fixes (Exit, Stdout, Files), and what
// only its page tells (the log and the times).
type Result struct {
	Exit   int32
	Stdout Output
	Files  []File // in byte order of their names
	Log    Output
	Wall   uint64 // microseconds
	CPU    uint64 // microseconds
}

// Page holds the results of the consecutive tasks of Range, in order. Encoded it is
// one chunk, of at most MaxPage bytes.
type Page struct {
	StageRef
	Life    Life
	Range   Range
	Worker  PeerID
	Results []Result
}

// Roots lists the files that the page names: outputs and logs too large to stand in it.
func (p *Page) Roots() []cid.Cid {
	var roots []cid.Cid
	add := func(o *Output) {
		if o.Root.Defined() {
			roots = append(roots, o.Root)
		}
	}
	for i := range p.Results {
		r := &p.Results[i]
		add(&r.Stdout)
		add(&r.Log)
		for j := range r.Files {
			add(&r.Files[j].Output)
		}
	}
	return roots
}
