package job

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/compute-mesh/mesh/protocol"
)

// DefaultOutputName is the pattern of output names where none is given.
const DefaultOutputName = "{index}.out"

// OutputName is the file that a task's output is written to: a valid relative name,
// made from a pattern (empty: DefaultOutputName) in which stand
//
//	{index}  the task's index, of five digits or as many as count-1 has
//	{name}   the input file's name: a relative path
//	{dir}    its directory; with the '/' behind it nothing, where it has none
//	{stem}   its base name without extension
//	{ext}    the extension with its dot, or nothing
//
// It fails on other braces, where the pattern needs a name and there is none, and where
// the result is no valid name. Two tasks may get one name: the caller looks for that.
func OutputName(pattern string, index protocol.TaskIndex, count uint64, name string) (string, error) {
	if pattern == "" {
		pattern = DefaultOutputName
	}
	digits := 5
	if count > 0 {
		digits = max(digits, len(strconv.FormatUint(count-1, 10)))
	}
	base := path.Base(name)
	ext := path.Ext(base)
	if ext == base { // ".profile" is a stem
		ext = ""
	}
	dir := path.Dir(name)
	if dir == "." {
		pattern = strings.ReplaceAll(pattern, "{dir}/", "")
		dir = ""
	}
	out, err := replace(pattern, func(key string) (string, bool, error) {
		var v string
		switch key {
		case "index":
			return fmt.Sprintf("%0*d", digits, uint64(index)), true, nil
		case "name":
			v = name
		case "dir":
			v = dir
		case "stem":
			v = strings.TrimSuffix(base, ext)
		case "ext":
			v = ext
		default:
			return "", false, fmt.Errorf("{%s} is none of {index} {name} {dir} {stem} {ext}", key)
		}
		if name == "" {
			return "", false, fmt.Errorf("{%s} asks for the name of an input file, and there is none: use {index}", key)
		}
		return v, true, nil
	})
	if err == nil {
		err = protocol.ValidName(out)
	}
	if err != nil {
		return "", fmt.Errorf("job: output name %q of task %d: %w", pattern, index, err)
	}
	return out, nil
}
