#!/bin/sh
# bench-compare.sh OLD: runs the Go benchmarks of a commit and of this tree in turn, so that what else the machine does meets
# both alike, and prints what benchstat makes of them. PACKAGES, BENCH (a pattern), ROUNDS and TIME (of one benchmark) choose.
set -eu
cd "$(dirname "$0")/.."
old=${1:?usage: $0 OLD}
packages=${PACKAGES:-./job ./market ./protocol ./chunkstore ./sandbox ./node}
tree=$(pwd)
work=$(mktemp -d)
trap 'git worktree remove --force "$work/old" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
git worktree add --quiet --detach "$work/old" "$old"

for p in $packages; do
	name=$(basename "$p")
	(cd "$work/old" && test -d "$p" && go test -c -o "$work/$name.old" "$p") || echo "$0: $p has no benchmarks in $old" >&2
	go test -c -o "$work/$name.new" "$p"
done
for round in $(seq "${ROUNDS:-6}"); do
	for p in $packages; do
		name=$(basename "$p")
		for side in old new; do
			from=$tree
			test $side = new || from=$work/old
			test -x "$work/$name.$side" || continue
			echo "round $round: $name, $side" >&2
			(cd "$from/$p" && "$work/$name.$side" -test.run '^$' -test.bench "${BENCH:-.}" -test.benchmem \
				-test.benchtime "${TIME:-1s}") >>"$work/$side.txt"
		done
	done
done
go tool -modfile="$tree/tools/go.mod" benchstat "old=$work/old.txt" "new=$work/new.txt"
