// Command guest is the conformance tests' program in Go. It prints what it sees of the contract through Go's own
// library, which uses other calls than C's. What may be another with another version of Go goes to /out/varies.
package main

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

func main() {
	fmt.Println(os.Args, len(os.Environ()))
	fmt.Println(os.Getwd())
	walk("/")
	try("mkdir", os.MkdirAll("/out/a/b", 0o755))
	try("write", os.WriteFile("/out/a/b/c", []byte("text"), 0o644))
	try("rename", os.Rename("/out/a/b/c", "/out/a/d"))
	try("remove", os.RemoveAll("/out/a/b"))
	try("read-only", os.WriteFile("/in/x", nil, 0o644))
	try("elsewhere", os.WriteFile("/etc/x", nil, 0o644))
	_, err := os.ReadFile("/etc/passwd")
	try("host file", err)
	temp, err := os.CreateTemp("", "t")
	try("temporary file", err)
	try("close", temp.Close())
	try("remove", os.Remove(temp.Name()))
	try("change times", os.Chtimes("/out/a/d", time.Unix(1, 2), time.Unix(3, 4)))
	walk("/out")
	walk("/tmp")

	begin := time.Now()
	time.Sleep(48 * time.Hour)
	fmt.Println("slept two days:", time.Since(begin) >= 48*time.Hour, time.Since(begin) < 49*time.Hour)
	select {
	case <-time.After(time.Minute):
		fmt.Println("timer")
	case <-time.After(time.Second):
		fmt.Println("earlier timer")
	}
	b := make([]byte, 16)
	_, err = rand.Read(b)
	try("random", err)
	fmt.Println(math.Sqrt(2)*math.Pi, math.Pow(1.1, 100))
	m := map[int]bool{}
	for i := range 20 {
		m[i] = true
	}
	varies := fmt.Sprintf("%x %d %s %d", b, mathrand.IntN(1e9), temp.Name(), time.Now().UnixNano())
	for i := range m { // in an order that comes from the random source
		varies += fmt.Sprint(" ", i)
	}
	try("varies", os.WriteFile("/out/varies", []byte(varies), 0o644))
	done := make(chan int)
	for i := range 10 {
		go func() { done <- i }()
	}
	sum := 0
	for range 10 {
		sum += <-done
	}
	fmt.Println(sum)
	fmt.Fprintln(os.Stderr, "log line")
	os.Exit(3)
}

func walk(root string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Println(path, info.Mode(), info.Size(), info.ModTime().UTC().Year())
		return nil
	})
	try("walk", err)
}

func try(what string, err error) { fmt.Println(what, err) }
