package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"
)

// FileReader reads a file from local chunks. It is an io.Reader, io.Seeker and io.ReaderAt; ReadAt may be called from
// several goroutines at once, the others may not. A chunk that is not here is an ErrNotFound at the read that needs it.
type FileReader struct {
	ctx    context.Context
	s      *Store
	root   cid.Cid
	size   int64
	offset int64
}

// FileReader opens the file under root: a raw chunk or a UnixFS file. Its context ends all later reads. Errors:
// ErrNotFound (the root is not here), ErrNotFile, ErrMalformed.
func (s *Store) FileReader(ctx context.Context, root cid.Cid) (*FileReader, error) {
	size, err := s.FileSize(ctx, root)
	if err != nil {
		return nil, err
	}
	return &FileReader{ctx: ctx, s: s, root: root, size: size}, nil
}

// FileSize is the length in bytes of the file under root; only the root needs to be here. Errors as of FileReader.
func (s *Store) FileSize(ctx context.Context, root cid.Cid) (int64, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	if _, _, err := keyOf(root); err != nil {
		return 0, err
	}
	if root.Type() != cid.DagProtobuf {
		size, ok := s.Size(root)
		if !ok {
			return 0, fmt.Errorf("chunkstore: chunk %s: %w", root, ErrNotFound)
		}
		return int64(size), nil
	}
	p, err := s.part(root)
	if err != nil {
		return 0, err
	}
	return int64(p.size), nil
}

// Size is the length of the file in bytes.
func (r *FileReader) Size() int64 { return r.size }

// Close ends nothing: no file is kept open between reads.
func (r *FileReader) Close() error { return nil }

// Read implements io.Reader.
func (r *FileReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ReadAt(p, r.offset)
	r.offset += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Seek implements io.Seeker.
func (r *FileReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return r.offset, errors.New("chunkstore: seek before the start of the file")
	}
	r.offset = offset
	return offset, nil
}

// ReadAt implements io.ReaderAt.
func (r *FileReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("chunkstore: read before the start of the file")
	}
	want := int64(len(p))
	if off >= r.size {
		return 0, io.EOF
	}
	p = p[:min(want, r.size-off)]
	n := 0
	err := r.s.visit(r.ctx, child{cid: r.root, size: uint64(r.size)}, off, int64(len(p)), maxDepth, func(data segment) error {
		k, err := data.readInto(r.s, p[n:])
		n += k
		return err
	})
	if err == nil && int64(n) < want {
		err = io.EOF
	}
	return n, err
}

// WriteTo writes the rest of the file to w, a chunk at a time.
func (r *FileReader) WriteTo(w io.Writer) (int64, error) {
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	start := r.offset
	if start >= r.size {
		return 0, nil
	}
	err := r.s.visit(r.ctx, child{cid: r.root, size: uint64(r.size)}, start, r.size-start, maxDepth, func(data segment) error {
		n, err := data.readInto(r.s, buf[:data.length])
		if err != nil {
			return err
		}
		n, err = w.Write(buf[:n])
		r.offset += int64(n)
		return err
	})
	return r.offset - start, err
}

// segment is a run of bytes of a file that is in one block.
type segment struct {
	cid            cid.Cid // of a raw leaf, when inline is nil
	inline         []byte
	offset, length int64 // in the leaf, or in inline
}

// readInto reads the segment, or as much as fits, into p.
func (g segment) readInto(s *Store, p []byte) (int, error) {
	p = p[:min(int64(len(p)), g.length)]
	if g.inline != nil {
		return copy(p, g.inline[g.offset:]), nil
	}
	return s.readAt(g.cid, p, g.offset)
}

// visit calls each with the segments of [off, off+length) of the part of a file, in order.
func (s *Store) visit(ctx context.Context, at child, off, length int64, depth int, each func(segment) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if depth == 0 {
		return fmt.Errorf("chunkstore: chunk %s: %w: deeper than %d", at.cid, ErrMalformed, maxDepth)
	}
	if at.cid.Type() != cid.DagProtobuf {
		if size, ok := s.Size(at.cid); ok && uint64(size) != at.size {
			return fmt.Errorf("chunkstore: chunk %s: %w: %d bytes, its parent says %d", at.cid, ErrMalformed, size, at.size)
		}
		if length == 0 {
			return nil
		}
		return each(segment{cid: at.cid, offset: off, length: length})
	}
	p, err := s.part(at.cid)
	if err != nil {
		return err
	}
	if p.size != at.size {
		return fmt.Errorf("chunkstore: chunk %s: %w: %d bytes, its parent says %d", at.cid, ErrMalformed, p.size, at.size)
	}
	end := off + length
	if n := int64(len(p.inline)); off < n && length > 0 {
		if err := each(segment{inline: p.inline, offset: off, length: min(end, n) - off}); err != nil {
			return err
		}
	}
	start := int64(len(p.inline))
	for _, c := range p.children {
		next := start + int64(c.size)
		if from, to := max(off, start), min(end, next); from < to {
			if err := s.visit(ctx, c, from-start, to-from, depth-1, each); err != nil {
				return err
			}
		}
		start = next
	}
	return nil
}

// part reads and decodes a node of a file.
func (s *Store) part(c cid.Cid) (*part, error) {
	buf := chunkBuffers.Get().(*[MaxChunk]byte)
	defer chunkBuffers.Put(buf)
	k, inline, err := keyOf(c)
	if err != nil {
		return nil, err
	}
	block := inline
	if inline == nil {
		s.index.use(k)
		if block, err = s.read(k, buf[:]); err != nil {
			return nil, fmt.Errorf("chunkstore: chunk %s: %w", c, err)
		}
	}
	return decodePart(c, block)
}

// readAt reads from off on of a chunk that is there and right.
func (s *Store) readAt(c cid.Cid, p []byte, off int64) (int, error) {
	k, inline, err := keyOf(c)
	if err != nil {
		return 0, err
	}
	if inline != nil {
		return copy(p, inline[min(off, int64(len(inline))):]), nil
	}
	fail := func(err error) (int, error) { return 0, fmt.Errorf("chunkstore: chunk %s: %w", c, err) }
	if _, _, ok := s.index.use(k); !ok {
		return fail(ErrNotFound)
	}
	if err := s.verify(k); err != nil {
		return fail(err)
	}
	f, _, _, err := s.openFile(k)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	if err != nil {
		n, err = f.ReadAt(p, off) // as in read
	}
	if err != nil {
		return fail(s.corrupt(k, err))
	}
	return n, nil
}

var errNoPath = errors.New("no path")

// Paths are the chunk files that make the file under root, in order, for reading without a copy; what Path says of one holds
// for each. ok is false where there are more than most, where a node has bytes itself, as some IPFS nodes make them, and where
// a chunk is missing: Materialise serves those cases, or says what is wrong.
func (s *Store) Paths(ctx context.Context, root cid.Cid, most int) (paths []string, ok bool) {
	size, err := s.FileSize(ctx, root)
	if err != nil {
		return nil, false
	}
	err = s.visit(ctx, child{cid: root, size: uint64(size)}, 0, size, maxDepth, func(data segment) error {
		path, ok := s.Path(data.cid)
		if !ok || len(paths) == most {
			return errNoPath
		}
		paths = append(paths, path)
		return nil
	})
	return paths, err == nil
}

// Materialise writes the file under root to path, where nothing may be yet, and returns its size. A file of one chunk
// becomes a hard link to the chunk, read-only, where the file systems allow it; otherwise the file is a copy. On error
// nothing is left at path.
func (s *Store) Materialise(ctx context.Context, root cid.Cid, path string) (int64, error) {
	r, err := s.FileReader(ctx, root)
	if err != nil {
		return 0, err
	}
	if k, inline, err := keyOf(root); err == nil && inline == nil && root.Type() != cid.DagProtobuf && s.present(k) {
		if s.disk.link(k, path) == nil {
			return r.size, nil
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, fmt.Errorf("chunkstore: materialise: %w", err)
	}
	n, err := r.WriteTo(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return n, errors.Join(fmt.Errorf("chunkstore: materialise %s: %w", root, err), os.Remove(path))
	}
	return n, nil
}
