package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/ipfs/go-cid"
)

// fileCacheBytes bounds the copies of files of more than one chunk that stay on disk for further tasks: a set of --file
// inputs and some programs. Those in use may pass it.
const fileCacheBytes = 4 << 30

// fileCache gives files of the chunk store as host files, which tasks can be shown. A file of one chunk is the chunk's
// own; of a larger one there is a copy, made once for all tasks that use it at the same time, and kept for later ones
// while there is room.
type fileCache struct {
	dir   string
	logs  string // directory of running tasks' logs, the only one that task processes write to
	limit int64
	store materialiser

	mu      sync.Mutex
	files   map[cid.Cid]*cachedFile
	clock   uint64
	total   int64
	counter uint64
}

// materialiser is what a fileCache needs of the chunk store.
type materialiser interface {
	Path(cid.Cid) (string, bool)
	Materialise(ctx context.Context, root cid.Cid, path string) (int64, error)
}

type cachedFile struct {
	mu    sync.Mutex // held while the file is made
	path  string
	ready bool
	size  int64
	users int
	used  uint64 // fileCache.clock at the last use
}

// newFileCache empties the directories: what an earlier process left may be half-written.
func newFileCache(dir, logs string, limit int64, store materialiser) (*fileCache, error) {
	for _, d := range []string{dir, logs} {
		if err := os.RemoveAll(d); err != nil {
			return nil, fmt.Errorf("node: files of tasks: %w", err)
		}
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("node: files of tasks: %w", err)
		}
	}
	return &fileCache{dir: dir, logs: logs, limit: limit, store: store, files: make(map[cid.Cid]*cachedFile)}, nil
}

// temp is the path of a file that does not exist yet, for whoever asks.
func (f *fileCache) temp(kind string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counter++
	return filepath.Join(f.dir, fmt.Sprintf("%s-%d", kind, f.counter))
}

// log is the path of a new log.
func (f *fileCache) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counter++
	return filepath.Join(f.logs, strconv.FormatUint(f.counter, 10))
}

// acquire gives the path of a file whose chunks are all here. It stays until release, as long as the chunks of a file
// of one chunk are held in the store.
func (f *fileCache) acquire(ctx context.Context, root cid.Cid) (path string, release func(), err error) {
	if root.Type() == cid.Raw {
		if path, ok := f.store.Path(root); ok {
			return path, func() {}, nil
		}
	}
	f.mu.Lock()
	file := f.files[root]
	if file == nil {
		f.counter++
		file = &cachedFile{path: filepath.Join(f.dir, fmt.Sprintf("file-%d", f.counter))}
		f.files[root] = file
	}
	file.users++
	f.mu.Unlock()
	release = sync.OnceFunc(func() { f.release(file) })
	if err := f.make(ctx, root, file); err != nil {
		release()
		return "", nil, err
	}
	return file.path, release, nil
}

func (f *fileCache) make(ctx context.Context, root cid.Cid, file *cachedFile) error {
	file.mu.Lock()
	defer file.mu.Unlock()
	if file.ready {
		return nil
	}
	size, err := f.store.Materialise(ctx, root, file.path)
	if err != nil {
		return err
	}
	file.ready = true
	f.mu.Lock()
	defer f.mu.Unlock()
	file.size = size
	f.total += size
	f.evict()
	return nil
}

func (f *fileCache) release(file *cachedFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file.users--
	f.clock++
	file.used = f.clock
	f.evict()
}

// evict removes files that nobody uses until the limit holds, the ones unused longest first. mu is held.
func (f *fileCache) evict() {
	for {
		var oldest cid.Cid
		for root, file := range f.files {
			if file.users > 0 || file.ready && f.total <= f.limit {
				continue
			}
			if !oldest.Defined() || file.used < f.files[oldest].used {
				oldest = root
			}
		}
		if !oldest.Defined() {
			return
		}
		file := f.files[oldest]
		delete(f.files, oldest)
		f.total -= file.size
		_ = os.Remove(file.path) // what can't be removed now goes at the next start
	}
}
