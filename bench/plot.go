package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// bars are the figures of the plot, and which way is better.
var bars = []struct {
	row, title string
	more       bool // more is better
}{
	{"noop 10000", "no-op tasks/s, 10,000 in a job", true},
	{"noop 10000 cpu", "CPU ms a no-op", false},
	{"latency", "one no-op by command line, ms", false},
	{"words", "word count of 512 MiB, s", false},
	{"burn", "64 tasks of 1 s, s", false},
	{"idle rss", "idle, MiB a peer or daemon", false},
}

// Sizes of the plot, in its own units.
const (
	plotWidth, plotLeft, plotRight = 720, 110, 90
	barHeight, barGap, panelGap    = 15, 4, 34
)

// plot draws a panel for each of bars as SVG: a bar for each system, on a logarithmic scale where they are more than 30 times
// apart. Colours are those of the page around it.
func (f *figures) plot() []byte {
	var body strings.Builder
	y := 24
	for _, p := range bars {
		best, most := math.Inf(1), 0.0
		var names []string
		for _, name := range f.columns() {
			if s, ok := spreadOf(f.samples[p.row][name]); ok {
				names = append(names, name)
				best, most = min(best, s.Median), max(most, s.Median)
			}
		}
		if len(names) == 0 {
			continue
		}
		direction := "less is better"
		if p.more {
			direction = "more is better"
		}
		logarithmic := most > 30*best
		if logarithmic {
			direction += ", logarithmic"
		}
		fmt.Fprintf(&body, "<text x=\"0\" y=\"%d\" font-weight=\"bold\">%s</text> <text x=\"%d\" y=\"%d\" text-anchor=\"end\" opacity=\".6\">%s</text>\n",
			y, p.title, plotWidth, y, direction)
		y += 8
		for _, name := range names {
			s, _ := spreadOf(f.samples[p.row][name])
			share := s.Median / most
			if logarithmic {
				share = math.Log(1+s.Median/best) / math.Log(1+most/best)
			}
			style := "opacity=\".35\""
			if name == "mesh" {
				style = "fill=\"#2a7\""
			}
			fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text><rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" %s/><text x=\"%.1f\" y=\"%d\">%s</text>\n",
				plotLeft-8, y+barHeight-3, title(name), plotLeft, y, share*(plotWidth-plotLeft-plotRight), barHeight, style,
				plotLeft+6+share*(plotWidth-plotLeft-plotRight), y+barHeight-3, short(s.Median))
			y += barHeight + barGap
		}
		y += panelGap
	}
	return fmt.Appendf(nil, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#777\">\n%s</svg>\n",
		plotWidth, max(y-panelGap, 1), body.String())
}

// short is a number with three digits that count, and all that are before the point.
func short(x float64) string {
	digits := 0
	for limit := 100.0; x < limit && digits < 3; limit /= 10 {
		digits++
	}
	return strconv.FormatFloat(x, 'f', digits, 64)
}
