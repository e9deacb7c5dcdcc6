package chunkstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/compute-mesh/mesh/internal/vfs"
)

// disk is where the chunk files are: dir/chunks/HH/HASH, where HASH is the SHA-256 in hex (so that sha256sum can check them)
// and HH its first two digits; files being written are in dir/tmp.
type disk struct {
	fs  vfs.FS
	dir string
}

type fileInfo struct {
	size     int64
	modified time.Time
}

const (
	chunksDir = "chunks"
	tempDir   = "tmp"
)

func (d disk) path(k key) string {
	h := k.String()
	return filepath.Join(d.dir, chunksDir, h[:2], h)
}

func (d disk) shardDir(shard byte) string {
	return filepath.Join(d.dir, chunksDir, fmt.Sprintf("%02x", shard))
}

// list makes the directories that are missing, removes temporary files left by a crash, and calls each for every chunk file.
func (d disk) list(each func(key, fileInfo)) (int, error) {
	if err := d.fs.MkdirAll(filepath.Join(d.dir, tempDir), 0o700); err != nil {
		return 0, err
	}
	temps, err := d.fs.ReadDir(filepath.Join(d.dir, tempDir))
	if err != nil {
		return 0, err
	}
	for _, t := range temps {
		if err := d.fs.Remove(filepath.Join(d.dir, tempDir, t.Name())); err != nil {
			return 0, err
		}
	}
	for shard := range 256 {
		if err := d.fs.MkdirAll(d.shardDir(byte(shard)), 0o700); err != nil {
			return 0, err
		}
		if err := d.listShard(byte(shard), each); err != nil {
			return 0, err
		}
	}
	// The shard directories exist before any chunk is acknowledged, so that syncing a chunk need not sync its grandparents.
	return len(temps), errors.Join(vfs.Sync(d.fs, filepath.Join(d.dir, chunksDir)), vfs.Sync(d.fs, d.dir))
}

func (d disk) listShard(shard byte, each func(key, fileInfo)) error {
	entries, err := d.fs.ReadDir(d.shardDir(shard))
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

// writeTemp writes data to a new file outside the chunk directories. The name of a file that is there is returned also with an
// error.
func (d disk) writeTemp(data []byte) (string, error) {
	f, err := d.createTemp()
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return f.Name(), errors.Join(err, f.Close())
}

// createTemp makes a file that only its creator's descriptor can write: a chunk never changes once it has a name.
func (d disk) createTemp() (vfs.File, error) {
	for range 100 {
		name := filepath.Join(d.dir, tempDir, randomName())
		f, err := d.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("no free temporary name in %s", d.dir)
}

// commit gives a temporary file its place as chunk k, replacing what is there.
func (d disk) commit(temp string, k key) error { return d.fs.Rename(temp, d.path(k)) }

func (d disk) removeTemp(temp string) error { return d.fs.Remove(temp) }

func (d disk) remove(k key) error { return d.fs.Remove(d.path(k)) }

func (d disk) open(k key) (vfs.File, error) { return d.fs.OpenFile(d.path(k), os.O_RDONLY, 0) }

// link makes a hard link to chunk k at the path, which is outside the store.
func (d disk) link(k key, path string) error { return d.fs.Link(d.path(k), path) }

// syncFile makes the contents of chunk k durable, syncShard the names in its directory.
func (d disk) syncFile(k key) error { return vfs.Sync(d.fs, d.path(k)) }

func (d disk) syncShard(shard byte) error { return vfs.Sync(d.fs, d.shardDir(shard)) }

// syncAll makes everything durable by one call; supported is false where the system has none.
func (d disk) syncAll() (supported bool, err error) { return d.fs.SyncAll(d.dir) }
