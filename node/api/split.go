package api

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
)

// SplitKind says where an input may be cut.
type SplitKind string

const (
	SplitLines SplitKind = "lines" // after a line end
	SplitBytes SplitKind = "bytes" // anywhere
	SplitFile  SplitKind = "file"  // nowhere: a piece a file
	SplitNone  SplitKind = "none"  // nowhere: all files joined are one piece
)

// DefaultPiece is how large pieces are made where nothing is said: 8 MiB, seconds of
// work for most programs.
const DefaultPiece = 8 << 20

// MaxPieceSize bounds the size that may be asked for: 1 TiB, more than a task reads in
// a day.
const MaxPieceSize = 1 << 40

// Split is how an input is cut into pieces.
type Split struct {
	Kind SplitKind
	Size uint64 // wanted bytes of a piece, for lines and bytes; else 0
}

// ParseSplit reads what --split takes: "lines:8MiB", "bytes:1MB", "file", "none". Empty
// is the default, lines of DefaultPiece.
func ParseSplit(s string) (Split, error) {
	if s == "" {
		return Split{SplitLines, DefaultPiece}, nil
	}
	kind, size, sized := strings.Cut(s, ":")
	split := Split{Kind: SplitKind(kind)}
	switch split.Kind {
	case SplitFile, SplitNone:
		if sized {
			return Split{}, Errorf(KindInvalid, "split %q: %s takes no size", s, kind)
		}
		return split, nil
	case SplitLines, SplitBytes:
		split.Size = DefaultPiece
		if !sized {
			return split, nil
		}
		n, err := humanize.ParseBytes(size)
		if err != nil || n == 0 || n > MaxPieceSize {
			return Split{}, Errorf(KindInvalid, "split %q: %q is no size from 1 byte to 1 TiB", s, size).
				WithAdvice("write it as in %s:8MiB", kind)
		}
		split.Size = n
		return split, nil
	default:
		return Split{}, Errorf(KindInvalid, "split %q: unknown rule %q", s, kind).
			WithAdvice("give lines:SIZE, bytes:SIZE, file or none")
	}
}

// String is the canonical form, which ParseSplit reads.
func (s Split) String() string {
	if s.Size == 0 {
		return string(s.Kind)
	}
	return fmt.Sprintf("%s:%d", s.Kind, s.Size)
}
