package sandbox

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"time"
)

// cache keeps native code on disk: a directory for each program and engine version, with the engine's files and a MAC
// of them under a key that only this peer has. Native code is as powerful as the process that loads it, so an entry
// whose MAC is wrong, for whatever reason, is removed and not loaded.
//
// Children write and read entries; the pool bounds their size.
type cache struct {
	dir string
	key []byte
}

const (
	keyFile   = "key"
	macFile   = "mac"
	cacheDir  = "cache"
	keyBytes  = 32
	tempStart = "new-"
)

// errUncompiled says that a program has no entry that can be used.
var errUncompiled = errors.New("sandbox: the program has not been compiled")

// openCache opens the cache of a directory, and makes both if they are missing.
func openCache(dir string) (*cache, error) {
	c := &cache{dir: filepath.Join(dir, cacheDir)}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, keyFile)
	key, err := os.ReadFile(path)
	if err == nil && len(key) == keyBytes {
		c.key = key
		return c, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c.key = make([]byte, keyBytes)
	_, _ = rand.Read(c.key) // never fails, see crypto/rand
	return c, writeWhole(path, c.key)
}

// writeWhole writes a file so that it is there with all its bytes or not at all.
func writeWhole(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempStart)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// entry is the directory of a program.
func (c *cache) entry(id string) string {
	sum := sha256.Sum256([]byte(codeVersion + "\n" + runtime.GOARCH + "\n" + id))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:]))
}

// load loads a program, or returns errUncompiled.
func (c *cache) load(e engine, id string) (module, error) {
	dir := c.entry(id)
	want, err := os.ReadFile(filepath.Join(dir, macFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errUncompiled
	}
	if err != nil {
		return nil, err
	}
	if got, err := c.mac(dir, id); err != nil || !hmac.Equal(got, want) {
		return nil, errors.Join(errUncompiled, os.RemoveAll(dir))
	}
	m, err := e.load(dir)
	if err != nil { // it was made on another processor, say
		return nil, errors.Join(errUncompiled, err, os.RemoveAll(dir))
	}
	return m, nil
}

// usable reports whether a program's entry is there and this peer's own.
func (c *cache) usable(id string) bool {
	dir := c.entry(id)
	want, err := os.ReadFile(filepath.Join(dir, macFile))
	if err != nil {
		return false
	}
	got, err := c.mac(dir, id)
	return err == nil && hmac.Equal(got, want)
}

// compile makes a program's entry, in place of one that is there. An error of the engine's, for which the program is to
// blame, is returned as a compileError.
func (c *cache) compile(e engine, p ProgramRef) error {
	wasm, err := os.ReadFile(p.Path)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(c.dir, tempStart)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := compileCanonical(e, wasm, temp); err != nil {
		return compileError{err}
	}
	mac, err := c.mac(temp, p.ID)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, macFile), mac, 0o600); err != nil {
		return err
	}
	dir := c.entry(p.ID)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(temp, dir)
}

// compileError is a program that the engine refuses.
type compileError struct{ error }

// mac is the MAC of an entry: of the engine, the program, and each file's path and contents, in byte order of the paths.
// It refuses anything but directories and regular files.
func (c *cache) mac(dir, id string) ([]byte, error) {
	h := hmac.New(sha256.New, c.key)
	fmt.Fprintf(h, "%q %q %q\n", codeVersion, runtime.GOARCH, id)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == macFile {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("sandbox: %s is not a regular file", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %d\n", filepath.ToSlash(name), info.Size())
		_, err = io.Copy(h, f)
		return err
	})
	return h.Sum(nil), err
}

// used marks an entry as used now, which is what trim goes by.
func (c *cache) used(id string) {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(c.entry(id), macFile), now, now) // a missing entry is found out when it is loaded
}

// trim removes the entries that were not used for longest, until no more than limit bytes are left, and what a compiling
// child left when it was killed an hour ago or more. A child that has an entry mapped keeps it.
func (c *cache) trim(limit int64) error {
	type entry struct {
		path string
		size int64
		used time.Time
	}
	dirs, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var entries []entry
	total := int64(0)
	for _, d := range dirs {
		e := entry{path: filepath.Join(c.dir, d.Name())}
		_ = filepath.WalkDir(e.path, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				if info, err := d.Info(); err == nil {
					e.size += info.Size()
				}
			}
			return nil // what goes away meanwhile has no size
		})
		if info, err := os.Stat(filepath.Join(e.path, macFile)); err == nil {
			e.used = info.ModTime()
		} else if info, err := d.Info(); err == nil && time.Since(info.ModTime()) < time.Hour {
			continue // it is being compiled
		}
		entries = append(entries, e)
		total += e.size
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].used.Before(entries[j].used) })
	var errs []error
	for _, e := range entries {
		if total <= limit && !e.used.IsZero() {
			break
		}
		errs = append(errs, os.RemoveAll(e.path))
		total -= e.size
	}
	return errors.Join(errs...)
}
