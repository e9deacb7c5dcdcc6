package protocol_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/pb"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// messagesFile has messages of every kind as version 1 of the protocol writes them, schemaFile every field of the wire with its
// number and type. Lines of both are only ever added.
const (
	messagesFile = "testdata/messages.txt"
	schemaFile   = "testdata/schema.txt"
	examples     = 3 // of each kind of message
)

func fileLines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// addLines adds to a golden file what is new.
func addLines(t *testing.T, name string, lines []string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, line := range lines {
		text = append(text, line+"\n"...)
	}
	require.NoError(t, os.WriteFile(name, text, 0o644))
}

// kindOf is a message's type, as golden files name it.
func kindOf(m protocol.Message) string { return strings.TrimPrefix(fmt.Sprintf("%T", m), "*protocol.") }

// Messages that were written once are read, and written, the same for ever, and every kind is among them.
func TestGoldenMessages(t *testing.T) {
	if *update {
		have := map[string]bool{}
		if _, err := os.Stat(messagesFile); err == nil {
			for _, line := range fileLines(t, messagesFile) {
				have[strings.Fields(line)[0]] = true
			}
		}
		var lines []string
		for n := range protocoltest.MessageKinds() {
			draw := rapid.Custom(func(t *rapid.T) protocol.Message { return protocoltest.MessageOf(t, n) })
			for seed := range examples {
				m := draw.Example(seed)
				b, err := protocol.EncodeMessage(m)
				require.NoError(t, err)
				if !have[kindOf(m)] {
					lines = append(lines, fmt.Sprintf("%s %x", kindOf(m), b))
				}
			}
		}
		addLines(t, messagesFile, lines)
	}
	kinds := map[string]bool{}
	for _, line := range fileLines(t, messagesFile) {
		kind, text, _ := strings.Cut(line, " ")
		kinds[kind] = true
		raw, err := hex.DecodeString(text)
		require.NoError(t, err)
		m, err := protocol.DecodeMessage(raw)
		require.NoError(t, err, kind)
		require.Equal(t, kind, kindOf(m))
		again, err := protocol.EncodeMessage(m)
		require.NoError(t, err)
		require.Equal(t, raw, again, kind)
	}
	require.Len(t, kinds, protocoltest.MessageKinds(), "a kind of message is not in %s: -update adds it", messagesFile)
}

// What a later version adds to a message is ignored: the rest of it says what it said.
func TestFieldsOfLaterMessagesAreIgnored(t *testing.T) {
	for _, line := range fileLines(t, messagesFile) {
		kind, text, _ := strings.Cut(line, " ")
		raw, err := hex.DecodeString(text)
		require.NoError(t, err)
		want, err := protocol.DecodeMessage(raw)
		require.NoError(t, err)

		beside := protowire.AppendTag(slices.Clone(raw), 1000, protowire.BytesType)
		beside = protowire.AppendBytes(beside, []byte("new"))
		got, err := protocol.DecodeMessage(beside)
		require.NoError(t, err, kind)
		require.Equal(t, want, got, kind)

		number, typ, n := protowire.ConsumeTag(raw)
		require.Equal(t, protowire.BytesType, typ)
		body, _ := protowire.ConsumeBytes(raw[n:])
		inside := protowire.AppendTag(slices.Clone(body), 1000, protowire.VarintType)
		inside = protowire.AppendVarint(inside, 7)
		changed := protowire.AppendBytes(protowire.AppendTag(nil, number, typ), inside)
		got, err = protocol.DecodeMessage(changed)
		require.NoError(t, err, kind)
		require.Equal(t, want, got, kind)
	}
}

// schema lists the fields of every message of the wire: name, number, type.
func schema() (lines []string) {
	var add func(protoreflect.MessageDescriptors)
	add = func(list protoreflect.MessageDescriptors) {
		for i := range list.Len() {
			m := list.Get(i)
			for k := range m.Fields().Len() {
				f := m.Fields().Get(k)
				typ := f.Kind().String()
				if f.Message() != nil {
					typ = string(f.Message().Name())
				}
				lines = append(lines, fmt.Sprintf("%s.%s %d %s %s", m.Name(), f.Name(), f.Number(), f.Cardinality(), typ))
			}
			add(m.Messages())
		}
	}
	add(pb.File_protocol_wire_proto.Messages())
	slices.Sort(lines)
	return lines
}

// A field's number and type are for ever; a field that goes stays in the list, so that its number is not used again.
func TestSchemaOnlyGrows(t *testing.T) {
	now := schema()
	if *update {
		var have []string
		if _, err := os.Stat(schemaFile); err == nil {
			have = fileLines(t, schemaFile)
		}
		addLines(t, schemaFile, slices.DeleteFunc(slices.Clone(now), func(l string) bool { return slices.Contains(have, l) }))
	}
	written := fileLines(t, schemaFile)
	byNumber, byName := map[string]string{}, map[string]string{}
	for _, line := range written {
		f := strings.Fields(line)
		require.Len(t, f, 4, line)
		message, _, _ := strings.Cut(f[0], ".")
		number := message + " " + f[1]
		require.Empty(t, byNumber[number], "%q uses the number of an older field", line)
		require.Empty(t, byName[f[0]], "%q was of another number or type before", line)
		byNumber[number], byName[f[0]] = line, line
	}
	for _, line := range now {
		require.Contains(t, written, line, "a field that %s does not have: -update adds it", schemaFile)
	}
}
