#!/bin/sh
# Shows mesh at work: a mesh of five peers on this machine, with no coordinator among them, counts the words of the Go
# distribution's own source, and the answer is held against a count by find, tr and awk. Nothing is left behind.
#
# Exit status: 0 the answer is right; 1 it is not, or something failed; 130, 143 interrupted.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
mesh=$root/bin/mesh
dir=$(mktemp -d "${TMPDIR:-/tmp}/mesh-demo.XXXXXX")
peers=5

say() { printf '\n== %s\n\n' "$*"; }

clean() {
	status=$?
	trap '' INT TERM HUP # a second Ctrl-C must not leave peers running
	trap - EXIT
	if [ -e "$dir/net" ]; then
		if "$mesh" testnet down --dir "$dir/net"; then
			printf '\nAll peers are stopped, and what they kept is removed.\n'
		else
			printf '\ndemo: peers may still run: see %s\n' "$dir/net" >&2
			exit 1
		fi
	fi
	rm -rf "$dir"
	exit $status
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# expected prints "word count" lines of the *.go files below a folder, sorted by word: what the program prints too. A
# line end after every file keeps its last word from the next file's first.
expected() {
	(cd "$1" && LC_ALL=C find . -type f -name '*.go' -exec sh -c 'for f; do cat "$f"; echo; done' sh {} +) |
		LC_ALL=C tr -cs 'A-Za-z' '\n' | LC_ALL=C tr 'A-Z' 'a-z' |
		LC_ALL=C awk 'NF { n[$1]++ } END { for (w in n) print w, n[w] }' | LC_ALL=C sort
}

say "Building mesh and meshd"
make -s -C "$root" build
go=$(cd "$root" && go env GOROOT)
text=$(cd "$go/src" && pwd -P)

say "Starting $peers peers: real processes that find each other through the first"
mkdir "$dir/net"
"$mesh" testnet up --peers $peers --dir "$dir/net" >"$dir/up"
sed -n '/^I /,/^$/{ /./p; }' "$dir/up"
export MESH_HOME="$dir/net/peer-0"

say "Counting the words of $text/**/*.go on all of them"
cd "$root"
"$mesh" submit --name 'words of Go' --input "$text" --include '*.go' \
	--map 'examples/wordcount/wordcount.wasm count' --reduce 'examples/wordcount/wordcount.wasm merge' --fan-in 4 \
	-o "$dir/words"

say "The ten commonest of $(awk 'END { print NR }' "$dir/words") words"
sort -k2,2nr -k1,1 "$dir/words" | awk 'NR <= 10 { printf "%10d  %s\n", $2, $1 }'

say "Who did what"
job=$("$mesh" ls --json | awk -F'"' '{ for (i = 2; i < NF; i++) if ($i == "job") { print $(i + 2); exit } }')
"$mesh" status "$job"

say "The same count without mesh: find, cat, tr, awk, sort"
expected "$text" >"$dir/expected"
if cmp -s "$dir/words" "$dir/expected"; then
	echo "$(awk '{ n += $2 } END { printf "%d", n }' "$dir/expected") words counted, the two lists are equal"
else
	echo "the two lists are NOT equal; the first differences (< mesh, > find):" >&2
	diff "$dir/words" "$dir/expected" | head -n 10 >&2 || true
	exit 1
fi
