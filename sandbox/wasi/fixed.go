package wasi

import (
	"errors"
	"io"
	"os"
	"sort"
)

// fixed is bytes that the caller gave and nobody writes: host files, read as if they were one. How they are cut cannot be
// seen from inside: a read goes on in the next file. One of them is open at a time.
type fixed struct {
	paths []string
	ends  []int64 // the offset behind each of them; the host is asked for their sizes once
	host  *os.File
	at    int // which of them host is
}

func (f *fixed) length() (int64, error) {
	if len(f.ends) == 0 {
		end := int64(0)
		for _, path := range f.paths {
			info, err := os.Stat(path)
			if err != nil {
				f.ends = nil
				return 0, err
			}
			end += info.Size()
			f.ends = append(f.ends, end)
		}
	}
	if len(f.ends) == 0 {
		return 0, nil
	}
	return f.ends[len(f.ends)-1], nil
}

// readAt fills b from offset off. All of it must be there, as length said it is.
func (f *fixed) readAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		i := sort.Search(len(f.ends), func(i int) bool { return f.ends[i] > off })
		if err := f.open(i); err != nil {
			return n, err
		}
		start := int64(0)
		if i > 0 {
			start = f.ends[i-1]
		}
		part := b[n:min(int64(len(b)), int64(n)+f.ends[i]-off)]
		k, err := f.host.ReadAt(part, off-start)
		n, off = n+k, off+int64(k)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // it was longer when it was asked for its size
			}
			return n, &os.PathError{Op: "read", Path: f.paths[i], Err: err}
		}
	}
	return n, nil
}

func (f *fixed) open(i int) error {
	if f.host != nil && f.at == i {
		return nil
	}
	f.close()
	host, err := os.Open(f.paths[i])
	if err != nil {
		return err
	}
	f.host, f.at = host, i
	return nil
}

func (f *fixed) close() {
	if f.host != nil {
		_ = f.host.Close() // it was only read
		f.host = nil
	}
}
