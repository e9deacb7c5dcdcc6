package job

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is one thing that is wrong with a manifest. Validate joins all of them;
// errors.As finds the first.
type Fault struct {
	Field  string // as in Manifest: "Stages[1].Args[2]"
	Reason string // what is wrong, with the value and the limit
	Remedy string // what to do about it
}

func (f *Fault) Error() string {
	return fmt.Sprintf("job: manifest: %s %s: %s", f.Field, f.Reason, f.Remedy)
}

// maxFaults bounds what is reported of one manifest: more than anybody reads, and a
// hostile manifest of 256 KiB makes no error of megabytes.
const maxFaults = 64

// maxReason bounds the bytes of a reason: it quotes values that may be long.
const maxReason = 512

// maxQuoted bounds the bytes that an error quotes of a line or a command.
const maxQuoted = 80

// faults collects what is wrong.
type faults struct{ list []error }

// unless notes a fault where ok is false. The reason's verbs take args.
func (f *faults) unless(ok bool, field, remedy, reason string, args ...any) {
	if ok || len(f.list) >= maxFaults {
		return
	}
	f.list = append(f.list, &Fault{Field: field, Reason: shorten(fmt.Sprintf(reason, args...), maxReason), Remedy: remedy})
}

// check notes err, where there is one, as a fault of the field.
func (f *faults) check(err error, field, remedy string) {
	if err != nil {
		f.unless(false, field, remedy, "is not valid: %s", err)
	}
}

func (f *faults) join() error { return errors.Join(f.list...) }

// shorten keeps a text short enough for an error.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
