package protocol_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is drawn has every field set at times, so that the tests of round trips show a
// field that somebody adds to a type and not to the wire.
func TestEveryFieldIsDrawn(t *testing.T) {
	draw := map[string]*rapid.Generator[any]{
		"receipt":      rapid.Custom(func(t *rapid.T) any { return protocoltest.Receipt(t) }),
		"announcement": rapid.Custom(func(t *rapid.T) any { return protocoltest.Announcement(t) }),
		"page":         rapid.Custom(func(t *rapid.T) any { return protocoltest.Page(t) }),
	}
	for _, kind := range protocoltest.Kinds {
		draw[kind.String()] = rapid.Custom(func(t *rapid.T) any {
			return protocoltest.Body(t, kind, protocoltest.Job(t), me.ID())
		})
	}
	for kind := range protocoltest.MessageKinds() {
		draw[fmt.Sprint("message ", kind+1)] = rapid.Custom(func(t *rapid.T) any { return protocoltest.MessageOf(t, kind) })
	}
	for name, generator := range draw {
		t.Run(name, func(t *testing.T) {
			set := map[string]bool{}
			for n := range 100 {
				fields(reflect.ValueOf(generator.Example(n)), "", set)
			}
			for field, ok := range set {
				require.True(t, ok, "%s is never set", field)
			}
		})
	}
}

// fields notes which exported fields below v are set.
func fields(v reflect.Value, path string, set map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if _, record := v.Interface().(protocol.Body); record && path != "" {
			return // a record in a message: records are drawn by themselves
		}
		if !v.IsNil() {
			fields(v.Elem(), path, set)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fields(v.Index(i), path+"[]", set)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() {
				continue
			}
			at := path + "." + f.Name
			set[at] = set[at] || !v.Field(i).IsZero()
			fields(v.Field(i), at, set)
		}
	}
}
