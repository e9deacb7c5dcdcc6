package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/ipfs/go-cid"
)

const (
	// maxProgram is the largest program, in bytes.
	maxProgram = 64 << 20
	// importSets is the prefix of the pin sets of what was imported: then the Unix ms, then something random.
	importSets = "import/"
)

// newImportSet names a pin set that keeps what is imported now for api.HoldTime.
func newImportSet(now time.Time) string {
	return importSets + strconv.FormatInt(now.UnixMilli(), 10) + "/" + rand.Text()
}

// expireImports lets go of imports that no job or pin has named in time.
func (n *Node) expireImports(now time.Time) {
	var old []string
	err := n.store.PinSets(func(set string) bool {
		if text, ok := strings.CutPrefix(set, importSets); ok {
			text, _, _ = strings.Cut(text, "/")
			ms, err := strconv.ParseInt(text, 10, 64)
			if age := now.Sub(time.UnixMilli(ms)); err != nil || age > api.HoldTime || age < -api.HoldTime {
				old = append(old, set)
			}
		}
		return true
	})
	for _, set := range old {
		err = errors.Join(err, n.store.Unpin(set))
	}
	if err != nil {
		n.log.Warn("imported content stays longer than it should", "error", err)
	}
}

// Import implements api.Importer.
func (b *backend) Import(ctx context.Context, o api.ImportOptions, src api.Source) (got api.Imported, err error) {
	set := newImportSet(time.Now())
	switch o.Form {
	case api.FormProgram:
		got, err = b.importProgram(ctx, set, src)
	case api.FormFiles:
		got, err = b.importFiles(ctx, set, src)
	case api.FormInput:
		got, err = b.importInput(ctx, set, o.Split, src)
	case api.FormLines:
		got, err = b.importLines(ctx, set, src)
	default:
		err = api.Errorf(api.KindInvalid, "import of form %.40q: want program, files, input or lines", o.Form)
	}
	if err == nil {
		return got, nil
	}
	if unpin := b.n.store.Unpin(set); unpin != nil {
		b.n.log.Warn("what a failed import stored stays for a while", "error", unpin)
	}
	return api.Imported{}, explain(err)
}

// only gives the one item that a form takes.
func only(src api.Source, what string) (api.Item, error) {
	item, err := src.Next()
	if errors.Is(err, io.EOF) {
		return item, api.Errorf(api.KindInvalid, "import: no %s was sent", what)
	}
	return item, err
}

// ended checks that nothing follows.
func ended(src api.Source, what string) error {
	if _, err := src.Next(); err == nil {
		return api.Errorf(api.KindInvalid, "import: more than one %s was sent", what)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (b *backend) importProgram(ctx context.Context, set string, src api.Source) (got api.Imported, err error) {
	item, err := only(src, "program")
	if err != nil {
		return got, err
	}
	if item.CID != "" {
		root, size, err := b.named(ctx, set, item.CID)
		if err != nil {
			return got, err
		}
		if err := b.checkProgram(ctx, item.Name, root); err != nil {
			return got, err
		}
		return api.Imported{Root: root.String(), Bytes: uint64(size)}, ended(src, "program")
	}
	wasm, err := io.ReadAll(io.LimitReader(src, maxProgram+1))
	if err != nil {
		return got, err
	}
	if err := checkProgram(item.Name, wasm); err != nil {
		return got, err
	}
	root, err := b.storeProgram(ctx, set, item.Name, wasm)
	if err != nil {
		return got, err
	}
	return api.Imported{Root: root.String(), Bytes: uint64(len(wasm))}, ended(src, "program")
}

// storeProgram stores a program. One of a single chunk, as most are, is not waited for until it is durable: the job that it is
// for comes next, and has its own pin. Should the peer end before that, the program has to be sent again.
func (b *backend) storeProgram(ctx context.Context, set, name string, wasm []byte) (cid.Cid, error) {
	if len(wasm) > chunkstore.MaxChunk {
		piece, err := b.n.store.ImportFile(ctx, set, name, bytes.NewReader(wasm))
		return piece.Root, err
	}
	hold := b.n.pins.hold()
	root, err := b.n.store.Put(ctx, wasm)
	if err != nil {
		hold.Release()
		return root, err
	}
	b.n.pins.add(set, hold, root)
	return root, nil
}

func checkProgram(name string, wasm []byte) error {
	if err := sandbox.Check(wasm, maxProgram); err != nil {
		return api.Errorf(api.KindInvalid, "program %q: %w", name, err)
	}
	return nil
}

// checkProgram checks a program that is in the store.
func (b *backend) checkProgram(ctx context.Context, name string, root cid.Cid) error {
	size, err := b.n.store.FileSize(ctx, root)
	if err != nil {
		return err
	}
	if size > maxProgram {
		return api.Errorf(api.KindInvalid, "program %q: it has %d bytes, the limit is %d", name, size, maxProgram)
	}
	wasm, err := b.n.content.file(ctx, root)
	if err != nil {
		return err
	}
	return checkProgram(name, wasm)
}

// named brings content that the mesh has, and pins it.
func (b *backend) named(ctx context.Context, set, text string) (root cid.Cid, size int64, err error) {
	if root, err = parseCID(text); err != nil {
		return root, 0, err
	}
	hold := b.n.store.Hold()
	defer hold.Release()
	if err := b.n.content.fetch(ctx, []cid.Cid{root}, source{}); err != nil {
		return root, 0, err
	}
	if size, err = b.n.store.FileSize(ctx, root); err != nil {
		return root, 0, err
	}
	return root, size, b.n.store.Pin(set, root)
}

func (b *backend) importFiles(ctx context.Context, set string, src api.Source) (got api.Imported, err error) {
	for {
		item, err := src.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		file := api.ImportedFile{Name: item.Name}
		if item.CID != "" {
			root, size, err := b.named(ctx, set, item.CID)
			if err != nil {
				return got, err
			}
			file.CID, file.Bytes = root.String(), uint64(size)
		} else {
			piece, err := b.n.store.ImportFile(ctx, set, item.Name, src)
			if err != nil {
				return got, err
			}
			file.CID, file.Bytes = piece.Root.String(), uint64(piece.Size)
		}
		got.Files = append(got.Files, file)
		got.Bytes += file.Bytes
	}
}

// indexer writes an input index into the store.
type indexer struct {
	*job.IndexWriter
	chunks []cid.Cid
}

func (b *backend) newIndexer(ctx context.Context) *indexer {
	x := &indexer{}
	x.IndexWriter = job.NewIndexWriter(func(block job.Block) error {
		x.chunks = append(x.chunks, block.CID)
		return b.n.store.PutBlock(ctx, block.CID, block.Data)
	})
	return x
}

// finish ends the index and pins its chunks.
func (b *backend) finish(x *indexer, set string) (api.Imported, error) {
	input, err := x.Finish()
	if err != nil {
		return api.Imported{}, err
	}
	return api.Imported{Index: input.Root.String(), Pieces: input.Count, Bytes: input.Bytes}, b.n.store.Pin(set, x.chunks...)
}

func (b *backend) importInput(ctx context.Context, set, rule string, src api.Source) (got api.Imported, err error) {
	split := chunkstore.Split{Kind: chunkstore.SplitLines}
	if rule != "" {
		if split, err = chunkstore.ParseSplit(rule); err != nil {
			return got, api.Errorf(api.KindInvalid, "%w", err)
		}
	}
	hold := b.n.store.Hold()
	defer hold.Release()
	x := b.newIndexer(ctx)
	im, err := b.n.store.NewImport(split, func(p chunkstore.Piece) error {
		return x.Add(job.Entry{Root: p.Root, Size: uint64(p.Size), Name: p.Name})
	})
	if err != nil {
		return got, err
	}
	defer im.Drop()
	if err := b.addItems(ctx, im, set, src); err != nil {
		return got, err
	}
	if _, err := im.Finish(ctx); err != nil {
		return got, err
	}
	if err := im.Commit(ctx, set); err != nil {
		return got, err
	}
	return b.finish(x, set)
}

func (b *backend) addItems(ctx context.Context, im *chunkstore.Import, set string, src api.Source) error {
	for {
		item, err := src.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var r io.Reader = src
		if item.CID != "" {
			root, _, err := b.named(ctx, set, item.CID)
			if err != nil {
				return err
			}
			if r, err = b.n.store.FileReader(ctx, root); err != nil {
				return err
			}
		}
		if err := im.Add(ctx, item.Name, r); err != nil {
			return err
		}
	}
}

func (b *backend) importLines(ctx context.Context, set string, src api.Source) (got api.Imported, err error) {
	item, err := only(src, "list of arguments")
	if err != nil {
		return got, err
	}
	var r io.Reader = src
	if item.CID != "" {
		root, _, err := b.named(ctx, set, item.CID)
		if err != nil {
			return got, err
		}
		if r, err = b.n.store.FileReader(ctx, root); err != nil {
			return got, err
		}
	}
	hold := b.n.store.Hold()
	defer hold.Release()
	x := b.newIndexer(ctx)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, job.MaxLine+2)
	for number := 1; lines.Scan(); number++ {
		if err := x.Add(job.Entry{Line: strings.TrimSuffix(lines.Text(), "\r")}); err != nil {
			return got, api.Errorf(api.KindInvalid, "%s, line %d: %w", nameOf(item), number, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return got, api.Errorf(api.KindInvalid, "%s: a line of more than %d bytes", nameOf(item), job.MaxLine).
			WithAdvice("give long data as --input, which tasks read as a file")
	}
	if err := lines.Err(); err != nil {
		return got, err
	}
	if got, err = b.finish(x, set); err != nil {
		return got, err
	}
	return got, ended(src, "list of arguments")
}

func nameOf(item api.Item) string {
	if item.Name == "" {
		return "standard input"
	}
	return fmt.Sprintf("%q", item.Name)
}
