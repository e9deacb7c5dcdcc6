package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// printable gives s with every character that could steer a terminal written as an
// escape, on one line or more: line ends and tabs stay.
func printable(s string) string { return escape(s, "\n\t") }

// inline is printable for what has to stay on one line.
func inline(s string) string { return escape(s, "") }

func escape(s, keep string) string {
	clean := true
	for _, r := range s {
		if !harmless(r, keep) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r, keep):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}

// harmless tells whether a terminal shows r and does nothing else: no control, no
// change of writing direction, nothing invisible.
func harmless(r rune, keep string) bool {
	return r != utf8.RuneError && (unicode.IsPrint(r) || strings.ContainsRune(keep, r))
}

// escaper writes printable text. A character that is cut in two by the ends of two
// writes is shown as escaped bytes.
type escaper struct{ w io.Writer }

func (e *escaper) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.w, printable(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// size is a number of bytes for people.
func size(n uint64) string { return humanize.IBytes(n) }

// count is a number of things for people: "1 task", "2 tasks".
func count(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// span is a length of time for people, in its two largest units at most.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		days := d / (24 * time.Hour)
		return fmt.Sprintf("%dd%dh", days, (d-days*24*time.Hour)/time.Hour)
	}
}

// grid is a table of text cells, each escaped; columns named in right are numbers.
type grid struct {
	w     table.Writer
	width int
}

func newGrid(columns ...string) *grid {
	g := &grid{w: table.NewWriter(), width: len(columns)}
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatDefault
	g.w.SetStyle(style)
	header := make(table.Row, len(columns))
	var configs []table.ColumnConfig
	for i, name := range columns {
		bare, number := strings.CutPrefix(name, ">")
		header[i] = bare
		if number {
			configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	g.w.AppendHeader(header)
	g.w.SetColumnConfigs(configs)
	return g
}

func (g *grid) row(cells ...any) {
	row := make(table.Row, len(cells))
	for i, cell := range cells {
		row[i] = inline(fmt.Sprint(cell))
	}
	g.w.AppendRow(row)
}

// write writes the table without blanks at the ends of lines.
func (g *grid) write(w io.Writer) error {
	for l := range strings.SplitSeq(g.w.Render(), "\n") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(l, " ")); err != nil {
			return err
		}
	}
	return nil
}
