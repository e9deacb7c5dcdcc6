package api

import "testing"

func TestParseSplit(t *testing.T) {
	for text, want := range map[string]Split{
		"":             {SplitLines, DefaultPiece},
		"lines":        {SplitLines, DefaultPiece},
		"lines:1MiB":   {SplitLines, 1 << 20},
		"bytes:1MB":    {SplitBytes, 1_000_000},
		"bytes:1":      {SplitBytes, 1},
		"file":         {SplitFile, 0},
		"none":         {SplitNone, 0},
		"bytes:1024":   {SplitBytes, 1024},
		"lines:512KiB": {SplitLines, 512 << 10},
	} {
		got, err := ParseSplit(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseSplit(got.String()); err != nil || again != got {
			t.Errorf("%q: written as %q, which reads as %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"csv:8MiB", "lines:", "lines:0", "lines:-1", "lines:2TiB", "bytes:x", "file:8MiB", "none:1", ":", "Lines"} {
		if got, err := ParseSplit(text); KindOf(err) != KindInvalid {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
