package job

import (
	"errors"
	"fmt"
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

// faults collects what is wrong.
type faults struct{ list []error }

// unless notes a fault where ok is false. The reason's verbs take args.
func (f *faults) unless(ok bool, field, remedy, reason string, args ...any) {
	if ok || len(f.list) >= maxFaults {
		return
	}
	f.list = append(f.list, &Fault{Field: field, Reason: fmt.Sprintf(reason, args...), Remedy: remedy})
}

// check notes err, where there is one, as a fault of the field.
func (f *faults) check(err error, field, remedy string) {
	if err != nil {
		f.unless(false, field, remedy, "%s", err)
	}
}

func (f *faults) join() error { return errors.Join(f.list...) }
