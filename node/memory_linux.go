package node

import "golang.org/x/sys/unix"

// totalMemory is the machine's memory in bytes.
func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return assumedMemory
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}
