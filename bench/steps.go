package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/compute-mesh/mesh/sandbox"
	"golang.org/x/sync/errgroup"
)

// chunkSize is what a store keeps in one file.
const chunkSize = 1 << 20

// localWords takes the steps of a word count with one replica that no system leaves out which keeps its promises, by the
// cheapest means and with nothing else: the text is read, hashed and written to a store's files, and the disk has it; then,
// at the same time, it goes over TLS to another store, where it is hashed and written again, and its pieces are counted in the
// sandbox by as many processes as there are cores, and merged. Nothing is scheduled, announced, recorded or waited for.
func (b *bench) localWords(ctx context.Context) error {
	own, children := processCPU(syscall.RUSAGE_SELF), childrenCPU()
	wall, err := b.steps(ctx)
	if err != nil {
		return err
	}
	b.figures.put("words", localName, wall.Seconds())
	b.figures.put("words cpu", localName, processCPU(syscall.RUSAGE_SELF)-own+childrenCPU()-children)
	return nil
}

// steps takes them, and the time, that of compiling the program apart. When it returns its processes have ended: only then is their
// CPU time known.
func (b *bench) steps(ctx context.Context) (wall time.Duration, err error) {
	l, err := b.newLocal()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	dirs := [2]string{filepath.Join(b.dir, "floor-from"), filepath.Join(b.dir, "floor-to")}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o777); err != nil {
			return 0, err
		}
		defer os.RemoveAll(d)
	}
	wasm := filepath.Join(b.examples, "wordcount", "wordcount.wasm")
	if _, err := l.count(ctx, wasm, "count", nil); err != nil { // compiles it
		return 0, err
	}
	r, err := measure(nil, func() error {
		chunks, err := importText(b.text.whole, dirs[0], b.cores)
		if err != nil {
			return err
		}
		both, ctx := errgroup.WithContext(ctx)
		both.Go(func() error { return ship(ctx, chunks, dirs[1]) })
		both.Go(func() error { return l.words(ctx, wasm, chunks, filepath.Join(b.dir, "floor-out")) })
		return both.Wait()
	})
	return r.wall, err
}

// keep hashes a chunk and writes it to a file of its own.
func keep(dir string, n int, chunk []byte) (string, error) {
	sum := sha256.Sum256(chunk)
	path := filepath.Join(dir, fmt.Sprintf("%d-%x", n, sum[:8]))
	return path, os.WriteFile(path, chunk, 0o666)
}

// importText cuts the text into chunks and stores them, on all cores and waiting for the disk with all at the same time.
func importText(text, dir string, cores int) (chunks []string, err error) {
	f, err := os.Open(text)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	chunks = make([]string, (info.Size()+chunkSize-1)/chunkSize)
	var cutters, flushes errgroup.Group
	flushes.SetLimit(16)
	for core := range cores {
		cutters.Go(func() error {
			buf := make([]byte, chunkSize)
			for i := core; i < len(chunks); i += cores {
				n, err := f.ReadAt(buf, int64(i)*chunkSize)
				if err != nil && err != io.EOF {
					return err
				}
				if chunks[i], err = keep(dir, i, buf[:n]); err != nil {
					return err
				}
				flushes.Go(func() error { return flush(chunks[i]) })
			}
			return nil
		})
	}
	return chunks, errors.Join(cutters.Wait(), flushes.Wait())
}

func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// ship sends chunks over TLS on loopback to a second store.
func ship(ctx context.Context, chunks []string, to string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		return err
	}
	defer ln.Close()
	ends, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })() // or who waits for the other end would for ever
	ends.Go(func() error {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, chunkSize)
		for n := 0; ; n++ {
			got, err := io.ReadFull(c, buf)
			if err == io.EOF {
				return nil
			}
			if err != nil && err != io.ErrUnexpectedEOF {
				return err
			}
			if _, err := keep(to, n, buf[:got]); err != nil {
				return err
			}
		}
	})
	ends.Go(func() error {
		c, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", ln.Addr().(*net.TCPAddr).String())
		if err != nil {
			return err
		}
		buf := make([]byte, chunkSize)
		for _, path := range chunks {
			if err := send(c, path, buf); err != nil {
				return errors.Join(err, c.Close())
			}
		}
		return c.Close()
	})
	return ends.Wait()
}

// send writes a file to c by way of buf, which has room for it.
func send(c io.Writer, path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.ErrUnexpectedEOF {
		return err
	}
	_, err = c.Write(buf[:n])
	return err
}

// words counts chunks in pieces of pieceSize, and merges the counts 16 at a time. The pieces end at chunks, not at lines: a
// few words are cut in two, which costs nothing.
func (l *local) words(ctx context.Context, wasm string, chunks []string, out string) error {
	const each, fanIn = pieceSize / chunkSize, 16
	level := "count"
	for parts := chunks; level == "count" || len(parts) > 1; level = "merge" {
		size := fanIn
		if level == "count" {
			size = each
		}
		next := make([]string, (len(parts)+size-1)/size)
		tasks, ctx := errgroup.WithContext(ctx)
		for i := range next {
			tasks.Go(func() error {
				counted, err := l.count(ctx, wasm, level, parts[i*size:min((i+1)*size, len(parts))])
				if err != nil {
					return err
				}
				next[i] = out + "-" + level + "-" + strconv.Itoa(len(parts)) + "-" + strconv.Itoa(i)
				return os.WriteFile(next[i], counted, 0o666)
			})
		}
		if err := tasks.Wait(); err != nil {
			return err
		}
		parts = next
	}
	return nil
}

// count runs the word count over files.
func (l *local) count(ctx context.Context, wasm, what string, in []string) ([]byte, error) {
	out, _, err := l.task(ctx, sandbox.Task{Args: []string{"wordcount", what}, Stdin: in}, wasm)
	return out, err
}
