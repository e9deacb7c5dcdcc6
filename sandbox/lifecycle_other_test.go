//go:build !linux

package sandbox

// processes is what TestMain does for a first argument.
var processes = map[string]func(args []string){}
