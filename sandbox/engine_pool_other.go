//go:build cgo && !linux

package sandbox

import "github.com/bytecodealliance/wasmtime-go/v44"

// poolMemory is for Linux, whose linker leaves a weak reference open that nothing satisfies.
func poolMemory(*wasmtime.Config) bool { return false }
