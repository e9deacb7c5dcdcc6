package chunkstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
)

// Piece is one part of an import: a task's input.
type Piece struct {
	Root cid.Cid // a raw chunk, or the root of a UnixFS file DAG
	Size int64   // bytes
	Name string  // the source file that its first byte is from
}

// Summary is what an import made.
type Summary struct {
	Files  int64 // files added
	Pieces int64
	Bytes  int64 // of all pieces together; more than was read by the newlines that were put between files
}

// Import cuts input into pieces and stores them, in the same memory whatever the size of the input. Its methods are called
// from one goroutine. Everything it stores is protected from collection until Commit or Drop, one of which must be called.
type Import struct {
	s      *Store
	ctx    context.Context // ends with Drop
	cancel context.CancelFunc
	cut    cutter
	source *bufio.Reader
	hold   *Hold
	set    string // pin set of the roots so far; removed by Commit, Drop, or the next Open
	sum    Summary
	first  string // name of the first file

	free   chan *[MaxChunk]byte // buffers; nil ones are not made yet
	out    chan assembly
	done   chan struct{} // the assembler has ended
	failed atomic.Pointer[error]

	fresh  atomic.Int64 // bytes stored since the last background sync began
	behind sync.Mutex   // held while that one runs
	each   func(Piece) error
	roots  []cid.Cid // not in set yet
	state  importState
}

type importState uint8

const (
	importOpen importState = iota
	importFinished
	importEnded
)

// leaf is a chunk being stored.
type leaf struct {
	key  key
	size int
	err  error
	done chan struct{}
}

// assembly is an instruction to the assembler: the next leaf of the piece, or, when leaf is nil, the end of the piece.
type assembly struct {
	leaf *leaf
	name string
}

// importRoots is how many roots an import keeps before it pins them in one transaction: 8,192 of 36 bytes are small, and
// 10^6 pieces make 122 transactions.
const importRoots = 8192

// importSync is after how many bytes an import has what it stored flushed meanwhile: 64 chunks are a group commit that is
// worth its journal commits, and what is left at the end is a fraction of a second of a slow disk's time.
const importSync = 64 << 20

// sourceBuffer is the read-ahead on a source, 64 KiB: reads of a chunk pass it by, small pieces are served from it.
const sourceBuffer = 64 << 10

// NewImport begins an import. Each is called with every piece, in order, from another goroutine but never after Finish or
// Drop has returned; an error from it ends the import. It may be nil.
func (s *Store) NewImport(split Split, each func(Piece) error) (*Import, error) {
	if err := split.Validate(); err != nil {
		return nil, err
	}
	if err := s.usable(context.Background()); err != nil {
		return nil, err
	}
	if each == nil {
		each = func(Piece) error { return nil }
	}
	im := &Import{
		s: s, each: each, hold: s.Hold(), set: importSets + randomName(),
		source: bufio.NewReaderSize(nil, sourceBuffer),
		free:   make(chan *[MaxChunk]byte, s.cfg.Writers+2),
		out:    make(chan assembly, s.cfg.Writers+2),
		done:   make(chan struct{}),
	}
	for range cap(im.free) {
		im.free <- nil
	}
	im.ctx, im.cancel = context.WithCancel(context.Background())
	im.cut = cutter{im: im, kind: split.Kind, limit: split.size()}
	go im.assemble()
	return im, nil
}

// Add imports one source file, whose name is only reported. After an error the import can only be dropped. Errors: those
// of r, ErrQuota, and the file system's.
func (im *Import) Add(ctx context.Context, name string, r io.Reader) error {
	if im.state != importOpen {
		return fmt.Errorf("chunkstore: import: %w", ErrClosed)
	}
	if im.sum.Files == 0 {
		im.first = name
	}
	im.sum.Files++
	im.source.Reset(r)
	err := im.cut.file(ctx, name, im.source)
	im.source.Reset(nil)
	if err != nil {
		im.fail(err)
		return fmt.Errorf("chunkstore: import %q: %w", name, err)
	}
	return nil
}

// Finish ends the input. When it returns nil, every piece has been reported and is in the store; Sync makes it durable.
func (im *Import) Finish(ctx context.Context) (Summary, error) {
	if im.state != importOpen {
		return Summary{}, fmt.Errorf("chunkstore: import: %w", ErrClosed)
	}
	im.state = importFinished
	err := im.err()
	if err == nil {
		err = im.cut.finish(im.first)
	}
	close(im.out)
	<-im.done
	if err == nil {
		err = errors.Join(im.err(), ctx.Err())
	}
	if err == nil {
		err = im.pinRoots()
	}
	if err != nil {
		im.fail(err)
		return Summary{}, fmt.Errorf("chunkstore: import: %w", err)
	}
	im.hold.Release() // the roots are pinned now
	return im.sum, nil
}

// Commit moves the protection of all pieces to the pin set, durably, and ends the import. Finish must have succeeded.
func (im *Import) Commit(ctx context.Context, set string) error {
	if err := checkSet(set); err != nil {
		return err
	}
	if im.state != importFinished || im.err() != nil {
		return fmt.Errorf("chunkstore: import: commit without a successful Finish: %w", ErrClosed)
	}
	if err := im.s.copySet(ctx, im.set, set); err != nil {
		return err
	}
	im.Drop()
	return nil
}

// Drop ends the import and its protection: what it stored may be collected, unless it has been pinned otherwise. After
// Commit, or a second time, it does nothing.
func (im *Import) Drop() {
	if im.state == importEnded {
		return
	}
	im.cancel()
	if im.state == importOpen {
		close(im.out)
	}
	im.state = importEnded
	<-im.done
	if b := im.cut.buf; b != nil {
		im.cut.buf = nil
		im.free <- b
	}
	for range cap(im.free) { // every leaf has given its buffer back when these are all here
		if b := <-im.free; b != nil {
			chunkBuffers.Put(b)
		}
	}
	im.behind.Lock() // what is flushed behind the import has ended, or ends with ctx
	defer im.behind.Unlock()
	if err := im.s.unpin(im.set); err != nil {
		im.s.log.Warn("pin set of an import stays until the next start", "error", err)
	}
	im.hold.Release()
}

func (im *Import) fail(err error) { im.failed.CompareAndSwap(nil, &err) }

func (im *Import) err() error {
	if p := im.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// buffer takes a free buffer, waiting for one.
func (im *Import) buffer() *[MaxChunk]byte {
	if b := <-im.free; b != nil {
		return b
	}
	return chunkBuffers.Get().(*[MaxChunk]byte)
}

// store begins to store the first size bytes of buf, and gives buf back when it is done.
func (im *Import) store(buf *[MaxChunk]byte, size int) *leaf {
	l := &leaf{size: size, done: make(chan struct{})}
	go func() {
		l.key, l.err = im.s.putBytes(im.ctx, buf[:size])
		close(l.done)
		im.stored(size)
		im.free <- buf
	}()
	return l
}

// stored begins to flush what there is, every importSync: whoever wants the import durable at its end, with Sync, finds the
// disk to have kept up with it. Errors are that call's to report, which tries again.
func (im *Import) stored(size int) {
	if im.fresh.Add(int64(size)) < importSync || !im.behind.TryLock() {
		return
	}
	im.fresh.Store(0)
	go func() {
		defer im.behind.Unlock()
		_ = im.s.Sync(im.ctx)
	}()
}

// assemble builds the pieces of the leaves, in order.
func (im *Import) assemble() {
	defer close(im.done)
	dag := layout{put: func(node []byte) (cid.Cid, error) { return im.s.putNode(im.ctx, node) }}
	for a := range im.out {
		if a.leaf != nil {
			<-a.leaf.done
		}
		if im.err() != nil {
			continue // only to drain
		}
		var err error
		if a.leaf == nil {
			err = im.endPiece(&dag, a.name)
		} else if err = a.leaf.err; err == nil {
			n := uint64(a.leaf.size)
			err = dag.add(child{cid: cidOf(cid.Raw, a.leaf.key), size: n, sum: n})
		}
		if err != nil {
			im.fail(err)
		}
	}
}

func (im *Import) endPiece(dag *layout, name string) error {
	root, err := dag.root()
	if err != nil {
		return err
	}
	im.sum.Pieces++
	im.sum.Bytes += int64(root.size)
	im.roots = append(im.roots, root.cid)
	if len(im.roots) == importRoots {
		if err := im.pinRoots(); err != nil {
			return err
		}
	}
	return im.each(Piece{Root: root.cid, Size: int64(root.size), Name: name})
}

func (im *Import) pinRoots() error {
	if len(im.roots) == 0 {
		return nil
	}
	err := im.s.pin(map[string][]cid.Cid{im.set: im.roots})
	im.roots = im.roots[:0]
	return err
}

// ImportFile stores one file as one piece and pins its root in the set. It is the import of programs and `mesh add`.
func (s *Store) ImportFile(ctx context.Context, set, name string, r io.Reader) (Piece, error) {
	var piece Piece
	im, err := s.NewImport(Split{Kind: SplitNone}, func(p Piece) error { piece = p; return nil })
	if err != nil {
		return Piece{}, err
	}
	defer im.Drop()
	if err := im.Add(ctx, name, r); err != nil {
		return Piece{}, err
	}
	if _, err := im.Finish(ctx); err != nil {
		return Piece{}, err
	}
	return piece, im.Commit(ctx, set)
}
