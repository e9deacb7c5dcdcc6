package chunkstore

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
)

// SplitKind is a rule for cutting input into pieces.
type SplitKind uint8

// The rules. csv, fasta and files have their names reserved by ParseSplit.
const (
	// SplitNone: the whole input, all files joined, is one piece; empty input is one empty piece.
	SplitNone SplitKind = iota
	// SplitLines: the files are one stream of lines. A piece is whole lines of at most Size bytes together, as many as fit;
	// a line longer than Size is a piece of its own. A last line without a newline gets one when more input follows.
	SplitLines
	// SplitBytes: each file is cut every Size bytes.
	SplitBytes
	// SplitFile: a file is a piece, an empty file an empty one.
	SplitFile
)

// DefaultPieceSize is the piece size of a split that names none: 8 MiB, some tenths of a second of work for a fast
// program, against which starting a task and fetching its piece are small.
const DefaultPieceSize = 8 << 20

// MaxPieceSize is the largest size of a split, in bytes: 64 GiB. An import that cuts lines remembers 100 bytes a MiB of it.
const MaxPieceSize = 64 << 30

// Split is how input is cut into pieces. The zero value is SplitNone.
type Split struct {
	Kind SplitKind
	Size int64 // wanted size of a piece in bytes, 1..MaxPieceSize, of SplitLines and SplitBytes; 0 means DefaultPieceSize
}

// ParseSplit reads "lines:8MiB", "bytes:1000000", "lines", "bytes", "file" or "none". Sizes are as in 8MiB, 8MB, 8388608.
func ParseSplit(text string) (Split, error) {
	name, size, sized := strings.Cut(text, ":")
	split := Split{}
	switch name {
	case "none":
	case "file":
		split.Kind = SplitFile
	case "lines":
		split = Split{Kind: SplitLines, Size: DefaultPieceSize}
	case "bytes":
		split = Split{Kind: SplitBytes, Size: DefaultPieceSize}
	case "csv", "fasta", "files":
		return Split{}, fmt.Errorf("chunkstore: split %q: %s is not there yet; use lines, bytes, file or none", text, name)
	default:
		return Split{}, fmt.Errorf("chunkstore: split %q: unknown kind; use lines, bytes, file or none", text)
	}
	if !sized {
		return split, nil
	}
	if split.Size == 0 {
		return Split{}, fmt.Errorf("chunkstore: split %q: %s takes no size", text, name)
	}
	n, err := humanize.ParseBytes(size)
	if err != nil || n > math.MaxInt64 {
		return Split{}, fmt.Errorf("chunkstore: split %q: size %q is not a number of bytes such as 8MiB, 8MB or 8388608", text, size)
	}
	split.Size = int64(n)
	if split.Size == 0 {
		return Split{}, fmt.Errorf("chunkstore: split %q: size must be at least 1 byte", text)
	}
	return split, split.Validate()
}

// Validate reports a kind or size out of range.
func (s Split) Validate() error {
	if s.Kind > SplitFile {
		return fmt.Errorf("chunkstore: split: unknown kind %d", s.Kind)
	}
	if s.Size < 0 || s.Size > MaxPieceSize {
		return fmt.Errorf("chunkstore: split: size %d is outside 1..%d bytes", s.Size, int64(MaxPieceSize))
	}
	return nil
}

// String is the form that ParseSplit reads, the size in plain bytes: the canonical form for a manifest.
func (s Split) String() string {
	switch s.Kind {
	case SplitNone:
		return "none"
	case SplitFile:
		return "file"
	case SplitLines:
		return fmt.Sprintf("lines:%d", s.size())
	case SplitBytes:
		return fmt.Sprintf("bytes:%d", s.size())
	}
	return fmt.Sprintf("unknown(%d)", s.Kind)
}

// size is the wanted size, unlimited where the rule has none.
func (s Split) size() int64 {
	switch {
	case s.Kind != SplitLines && s.Kind != SplitBytes:
		return math.MaxInt64
	case s.Size == 0:
		return DefaultPieceSize
	}
	return s.Size
}
