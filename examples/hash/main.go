// Command hash prints the SHA-256 of its standard input, or of each file named as an argument, as sha256sum does. It
// shows a program in Go: GOOS=wasip1 GOARCH=wasm go build -o hash.wasm ./examples/hash
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hash:", err)
		os.Exit(1)
	}
}

func run(files []string) error {
	if len(files) == 0 {
		return sum("-", os.Stdin)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := sum(name, f); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func sum(name string, r io.Reader) error {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	_, err := fmt.Printf("%x  %s\n", h.Sum(nil), name)
	return err
}
