package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// pieceSize bounds the pieces of the text: what `--split lines:8MiB` makes.
const pieceSize = 8 << 20

// text is what words are counted of: a file, and the same in pieces that end at line ends.
type text struct {
	whole  string
	pieces []string
	source string
}

// makeText writes size bytes of real text to dir: the C source of Linux, where Debian's linux-source-6.1 is
// installed, else the source of Go, in byte order of the paths, again from the start as often as it takes.
func makeText(ctx context.Context, dir string, size int64) (text, error) {
	t := text{whole: filepath.Join(dir, "text")}
	f, err := os.Create(t.whole)
	if err != nil {
		return t, err
	}
	defer f.Close()
	rest := &limited{f, size}
	if archive := linuxSource(ctx); archive != "" {
		t.source = "linux-source-6.1, *.c *.h"
		err = untar(ctx, archive, rest)
	} else {
		t.source = "the Go tree, *.go"
		err = goSource(ctx, rest)
	}
	once := size - rest.left
	if err == nil && once == 0 {
		err = fmt.Errorf("no text found (%s)", t.source)
	}
	for err == nil && rest.left > 0 {
		_, err = io.Copy(rest, io.NewSectionReader(f, 0, once))
	}
	if err != nil && !errors.Is(err, errFull) {
		return t, err
	}
	return t, t.cut(f, filepath.Join(dir, "pieces"))
}

// errFull: there is all the text that is wanted.
var errFull = errors.New("enough")

// limited passes on a number of bytes, and then fails with errFull.
type limited struct {
	to   io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	n, err := l.to.Write(p[:min(int64(len(p)), l.left)])
	if l.left -= int64(n); err == nil && n < len(p) {
		err = errFull
	}
	return n, err
}

// linuxSource is the archive of Debian's package, or empty.
func linuxSource(ctx context.Context) string {
	list, err := exec.CommandContext(ctx, "dpkg", "-L", "linux-source-6.1").Output()
	if err != nil {
		return ""
	}
	for _, line := range strings.Fields(string(list)) {
		if strings.HasSuffix(line, ".tar.xz") {
			return line
		}
	}
	return ""
}

// untar writes the files in the order of the archive, which is sorted by path.
func untar(ctx context.Context, archive string, to io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, "tar", "-xJf", archive, "--wildcards", "--to-stdout", "*.c", "*.h")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = io.Copy(to, out)
	stop()
	if ended := cmd.Wait(); err == nil {
		err = ended
	}
	return err
}

func goSource(ctx context.Context, to io.Writer) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return failed(err)
	}
	return filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(p, ".go") {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = to.Write(data)
		return err
	})
}

// cut makes the pieces.
func (t *text) cut(f *os.File, dir string) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	buf := make([]byte, pieceSize)
	for at := int64(0); ; {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return nil
		}
		if n == len(buf) {
			if end := bytes.LastIndexByte(buf, '\n'); end >= 0 {
				n = end + 1
			}
		}
		p := filepath.Join(dir, fmt.Sprintf("%04d", len(t.pieces)))
		if err := os.WriteFile(p, buf[:n], 0o666); err != nil {
			return err
		}
		t.pieces = append(t.pieces, p)
		at += int64(n)
	}
}

// join writes files one after the other to another.
func join(files []string, to string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, p := range files {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return out.Close()
}

// noise writes a file in which no chunk is like another.
func noise(file string, size int64, seed uint64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	if _, err := io.CopyN(f, rand.NewChaCha8(key), size); err != nil {
		return err
	}
	return f.Close()
}

// fill writes a file of copies of data, to the disk.
func fill(file string, data []byte, size int64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for size > 0 {
		n, err := f.Write(data[:min(int64(len(data)), size)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return errors.Join(f.Sync(), f.Close())
}
