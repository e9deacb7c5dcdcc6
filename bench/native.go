package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// programs are the native counterparts of the example programs, without arguments. What they print is the same.
type programs struct {
	wordcount, burn []string
	kernels         map[string]string // by name; none without a C compiler
	compiler        string
}

// buildPrograms builds the examples with the C compiler, or where there is none takes the Go programs below.
func buildPrograms(ctx context.Context, examples, kernelDir, dir string) (programs, error) {
	self, err := os.Executable()
	if err != nil {
		return programs{}, err
	}
	in := programs{wordcount: []string{self, "wordcount"}, burn: []string{self, "burn"}, compiler: "go"}
	cc, err := exec.LookPath("cc")
	if err != nil {
		return in, nil
	}
	for _, p := range []struct {
		name string
		argv *[]string
	}{{"wordcount", &in.wordcount}, {"burn", &in.burn}} {
		out := filepath.Join(dir, p.name)
		if err := run(exec.CommandContext(ctx, cc, "-O2", "-o", out, filepath.Join(examples, p.name, p.name+".c"))); err != nil {
			return in, err
		}
		*p.argv = []string{out}
	}
	in.kernels = make(map[string]string)
	for _, k := range kernels {
		out := filepath.Join(dir, k.name)
		if err := run(exec.CommandContext(ctx, cc, "-O2", "-o", out, filepath.Join(kernelDir, k.name+".c"), "-lm")); err != nil {
			return in, err
		}
		in.kernels[k.name] = out
	}
	in.compiler = "cc -O2"
	return in, nil
}

// nativeBurn is examples/burn in Go.
func nativeBurn(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: burn ROUNDS")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	composite := make([]bool, 2_000_000)
	var sum uint64
	for r := range rounds {
		clear(composite)
		for i := 2; i < len(composite); i++ {
			if composite[i] {
				continue
			}
			sum = sum*31 + uint64(i+r)
			for j := 2 * i; j < len(composite); j += i {
				composite[j] = true
			}
		}
	}
	_, err = fmt.Println(sum)
	return err
}

// nativeWordcount is examples/wordcount in Go.
func nativeWordcount(args []string) error {
	counts := make(map[string]*uint64)
	var err error
	switch {
	case len(args) == 1 && args[0] == "count":
		err = countWords(os.Stdin, counts)
	case len(args) == 1 && args[0] == "merge":
		err = mergeCounts(os.Stdin, counts)
	default:
		err = errors.New("usage: wordcount count|merge")
	}
	if err != nil {
		return err
	}
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	slices.Sort(words)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	for _, w := range words {
		fmt.Fprintf(out, "%s %d\n", w, *counts[w])
	}
	return out.Flush()
}

func add(counts map[string]*uint64, word []byte, n uint64) {
	if p := counts[string(word)]; p != nil {
		*p += n
		return
	}
	counts[string(word)] = &n
}

func countWords(in io.Reader, counts map[string]*uint64) error {
	buf := make([]byte, 1<<20)
	var word []byte // that has begun
	for {
		n, err := in.Read(buf)
		for _, c := range buf[:n] {
			if c |= 0x20; 'a' <= c && c <= 'z' {
				word = append(word, c)
			} else if len(word) > 0 {
				add(counts, word, 1)
				word = word[:0]
			}
		}
		if err != nil {
			if len(word) > 0 {
				add(counts, word, 1)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func mergeCounts(in io.Reader, counts map[string]*uint64) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<30)
	for lines.Scan() {
		word, count, _ := bytes.Cut(lines.Bytes(), []byte(" "))
		n, err := strconv.ParseUint(string(count), 10, 64)
		if err != nil {
			return err
		}
		add(counts, word, n)
	}
	return lines.Err()
}
