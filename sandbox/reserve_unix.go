//go:build !cgo && unix

package sandbox

import "syscall"

func reserve(n uint64) ([]byte, error) {
	return syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

func unreserve(b []byte) { _ = syscall.Munmap(b) } // fails only for what is not a mapping
