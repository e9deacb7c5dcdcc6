//go:build !linux

package sandbox

import (
	"os/exec"
	"strconv"
	"strings"
)

// processes is what TestMain does for a first argument.
var processes = map[string]func(args []string){}

// children is the IDs of a process's live children.
func children(pid int) []string {
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	return strings.Fields(string(out))
}
