package chunkstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// disk is every operation on chunk files that the store makes. It is the seam where tests inject faults and check the
// order of writes. Names are relative to the store's directory.
type disk interface {
	// list makes the directories that are missing, removes temporary files left by a crash, and calls each for every
	// chunk file.
	list(each func(key, fileInfo)) (leftovers int, err error)
	// writeTemp writes data to a new file outside the chunk directories and returns its name. Nothing is left on error.
	writeTemp(data []byte) (name string, err error)
	// commit gives a temporary file its place as chunk k, replacing what is there.
	commit(temp string, k key) error
	removeTemp(temp string) error
	remove(k key) error
	open(k key) (chunkFile, error)
	// link makes a hard link to chunk k at the path, which is outside the store.
	link(k key, path string) error
	// syncFile makes the contents of chunk k durable, syncShard the names in its directory.
	syncFile(k key) error
	syncShard(shard byte) error
	// syncAll makes everything durable by one call; supported is false where the system has none.
	syncAll() (supported bool, err error)
	path(k key) string
}

// chunkFile is a chunk file open for reading.
type chunkFile interface {
	io.Reader
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

type fileInfo struct {
	size     int64
	modified time.Time
}

// osDisk keeps chunks in dir/chunks/HH/HASH, where HASH is the SHA-256 in hex (so that sha256sum can check them) and HH
// its first two digits, and files being written in dir/tmp.
type osDisk struct{ dir string }

const (
	chunksDir = "chunks"
	tempDir   = "tmp"
)

func (d osDisk) path(k key) string {
	h := k.String()
	return filepath.Join(d.dir, chunksDir, h[:2], h)
}

func (d osDisk) shardDir(shard byte) string {
	return filepath.Join(d.dir, chunksDir, fmt.Sprintf("%02x", shard))
}

func (d osDisk) list(each func(key, fileInfo)) (int, error) {
	if err := os.MkdirAll(filepath.Join(d.dir, tempDir), 0o700); err != nil {
		return 0, err
	}
	temps, err := os.ReadDir(filepath.Join(d.dir, tempDir))
	if err != nil {
		return 0, err
	}
	for _, t := range temps {
		if err := os.RemoveAll(filepath.Join(d.dir, tempDir, t.Name())); err != nil {
			return 0, err
		}
	}
	for shard := range 256 {
		if err := os.MkdirAll(d.shardDir(byte(shard)), 0o700); err != nil {
			return 0, err
		}
		if err := d.listShard(byte(shard), each); err != nil {
			return 0, err
		}
	}
	// The shard directories exist before any chunk is acknowledged, so that syncing a chunk need not sync its grandparents.
	return len(temps), errors.Join(syncPath(filepath.Join(d.dir, chunksDir)), syncPath(d.dir))
}

func (d osDisk) listShard(shard byte, each func(key, fileInfo)) error {
	entries, err := os.ReadDir(d.shardDir(shard))
	if err != nil {
		return err
	}
	for _, e := range entries {
		k, ok := parseKey(e.Name())
		if !ok || k[0] != shard || !e.Type().IsRegular() {
			continue // not ours: left alone, never served
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		each(k, fileInfo{size: info.Size(), modified: info.ModTime()})
	}
	return nil
}

func (d osDisk) writeTemp(data []byte) (string, error) {
	f, err := createTemp(filepath.Join(d.dir, tempDir))
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (d osDisk) commit(temp string, k key) error { return os.Rename(temp, d.path(k)) }

func (d osDisk) removeTemp(temp string) error { return os.Remove(temp) }

func (d osDisk) remove(k key) error { return os.Remove(d.path(k)) }

func (d osDisk) open(k key) (chunkFile, error) { return os.Open(d.path(k)) }

func (d osDisk) link(k key, path string) error { return os.Link(d.path(k), path) }

func (d osDisk) syncFile(k key) error { return syncPath(d.path(k)) }

func (d osDisk) syncShard(shard byte) error { return syncPath(d.shardDir(shard)) }

func (d osDisk) syncAll() (bool, error) { return syncFileSystem(d.dir) }

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// createTemp makes a file that only its creator's descriptor can write: a chunk never changes once it has a name.
func createTemp(dir string) (*os.File, error) {
	for range 100 {
		name := filepath.Join(dir, randomName())
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("no free temporary name in %s", dir)
}
