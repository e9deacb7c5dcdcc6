package job

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// SplitArgs splits a command as a POSIX shell splits words: at blanks, tabs and line
// ends, with single quotes, double quotes and backslashes. Nothing else is special, so
// that what is no quoting reaches the program as it was typed: variables, wildcards,
// '#', ';', '|', '~' and braces stand for themselves.
// It fails on an unclosed quote, on a backslash at the end, and on what can be no
// argument (zero bytes, bytes that are no UTF-8). An empty command has no words.
func SplitArgs(s string) ([]string, error) {
	if strings.Contains(s, "\x00") || !utf8.ValidString(s) {
		return nil, errors.New("job: command: it has a zero byte or is no UTF-8: pass such data in a file")
	}
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		case '\\':
			if i++; i == len(s) {
				return nil, fmt.Errorf("job: command %q: it ends with a backslash: write \\\\ for one", shorten(s, maxQuoted))
			}
			if s[i] == '\n' { // a continued line
				continue
			}
			word.WriteByte(s[i])
			inWord = true
		case '\'', '"':
			n, err := quoted(&word, s[i:])
			if err != nil {
				return nil, err
			}
			i += n - 1
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted appends the quoted text that s begins with and returns its length, quotes
// included.
func quoted(word *strings.Builder, s string) (int, error) {
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == quote:
			return i + 1, nil
		case c == '\\' && quote == '"' && i+1 < len(s) && strings.IndexByte("$`\"\\\n", s[i+1]) >= 0:
			if i++; s[i] != '\n' {
				word.WriteByte(s[i])
			}
		default:
			word.WriteByte(c)
		}
	}
	return 0, fmt.Errorf("job: command: the quote %c is not closed in %q: close it, or write \\%c for the character", quote, shorten(s, maxQuoted), quote)
}
