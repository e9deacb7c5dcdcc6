//go:build !linux

package node

// totalMemory is the machine's memory in bytes: here it can't be told, and --memory says better.
func totalMemory() uint64 { return assumedMemory }
