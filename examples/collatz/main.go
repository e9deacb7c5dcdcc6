// Command collatz looks for the number below a limit whose Collatz sequence is longest, and goes on from its last checkpoint when
// it was interrupted. It shows how a program in Go does that: GOOS=wasip1 GOARCH=wasm go build -o collatz.wasm ./examples/collatz
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/compute-mesh/mesh/sandbox/guest"
)

// block is how many numbers are tried between two checkpoints: some tenths of a second.
const block = 1 << 20

// search is how far a search is: all that it needs to go on.
type search struct {
	Next  uint64 // the first number that was not tried
	Best  uint64
	Steps int // of Best
	Total uint64
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "collatz:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: collatz LIMIT")
	}
	limit, err := strconv.ParseUint(args[0], 10, 40) // sequences from there on could pass 64 bits
	if err != nil {
		return err
	}
	path := filepath.Join(guest.StateDir, "collatz.state")
	s, err := load(path)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "begins at", s.Next)
	for s.Next < limit {
		s.advance(min(limit, s.Next+block))
		if err := s.save(path); err != nil {
			return err
		}
		guest.Checkpoint()
		guest.Progress(int(s.Next * 1000 / limit))
	}
	fmt.Printf("%d takes %d steps, all below %d take %d\n", s.Best, s.Steps, limit, s.Total)
	return os.RemoveAll(path)
}

// advance tries the numbers below end.
func (s *search) advance(end uint64) {
	for ; s.Next < end; s.Next++ {
		steps := 0
		for n := s.Next; n > 1; steps++ {
			if n%2 == 0 {
				n /= 2
			} else {
				n = 3*n + 1
			}
		}
		s.Total += uint64(steps)
		if steps > s.Steps {
			s.Best, s.Steps = s.Next, steps
		}
	}
}

// save writes a new file beside the old one, so that there is always a whole one.
func (s *search) save(path string) error {
	text := fmt.Sprintln(s.Next, s.Best, s.Steps, s.Total)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func load(path string) (*search, error) {
	s := &search{Next: 1}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = fmt.Sscan(string(b), &s.Next, &s.Best, &s.Steps, &s.Total)
	return s, err
}
