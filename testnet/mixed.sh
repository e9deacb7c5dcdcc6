#!/bin/sh
# A mesh of two releases: mixed.sh OLD builds meshd of an older commit beside this tree's, starts a testnet with peers of both,
# counts words through either, loses a peer of each in the middle of an array job, and then upgrades an old peer in place. The
# results are held against a count without mesh, and against a run without losses.
#
# Exit status: 0 all is equal; 1 something differs or failed; 2 there is no such commit here; 130, 143 interrupted.
set -eu

old=${1:?usage: $0 OLD}
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if ! commit=$(git rev-parse --quiet --verify "$old^{commit}"); then
	echo "mixed: there is no commit $old in this clone; a shallow one has too few: git fetch --unshallow" >&2
	exit 2
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/mesh-mixed.XXXXXX")
mesh=$work/bin/mesh

say() { printf '\n== %s\n\n' "$*"; }

clean() {
	status=$?
	trap '' INT TERM HUP
	trap - EXIT
	if [ $status -ne 0 ] && [ -d "$work/net" ]; then
		for log in "$work"/net/*.log "$work"/net/*/*.log; do
			[ -f "$log" ] && { echo "--- $log"; tail -n 15 "$log"; } >&2
		done
	fi
	[ ! -e "$work/net" ] || "$mesh" testnet down --dir "$work/net" >&2 || status=1
	git worktree remove --force "$work/tree" 2>/dev/null || true
	rm -rf "$work"
	exit $status
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# release makes the peers started from now on those of old or new: they are started by one name, as after an upgrade.
release() { ln -sfn "$work/$1/meshd" "$work/bin/meshd"; }

# as types a mesh command at a peer: as N old|new ARGS...
as() {
	peer=$1 side=$2
	shift 2
	MESH_HOME="$work/net/peer-$peer" "$work/$side/mesh" "$@"
}

# same fails unless two files are equal.
same() {
	cmp -s "$1" "$2" || { echo "mixed: $3: $1 and $2 differ" >&2; diff "$1" "$2" | head -n 5 >&2; exit 1; }
	echo "$3: equal"
}

say "Building $(git log -1 --format='%h, %s' "$commit") and this tree"
git worktree add --quiet --detach "$work/tree" "$commit"
mkdir "$work/old" "$work/new" "$work/bin" "$work/text"
(cd "$work/tree" && go build -o "$work/old/" ./cmd/mesh ./cmd/meshd)
go build -o "$work/new/" ./cmd/mesh ./cmd/meshd
cp "$work/new/mesh" "$mesh"

say "Starting two peers of this tree, then two old ones"
release new
mkdir "$work/net"
"$mesh" testnet up --peers 2 --slots 1 --dir "$work/net" >/dev/null
release old
"$mesh" testnet add --dir "$work/net" >/dev/null
"$mesh" testnet add --dir "$work/net" >/dev/null
"$mesh" testnet status --dir "$work/net"

say "Counting words, submitted at a new peer and at an old one"
cp docs/*.md docs/decisions/*.md "$work/text"
LC_ALL=C cat "$work"/text/*.md | LC_ALL=C tr -cs 'A-Za-z' '\n' | LC_ALL=C tr 'A-Z' 'a-z' |
	LC_ALL=C awk 'NF { n[$1]++ } END { for (w in n) print w, n[w] }' | LC_ALL=C sort >"$work/expected"
for at in "0 new" "2 old"; do
	as $at submit --input "$work/text" --split lines:16KiB --map 'examples/wordcount/wordcount.wasm count' \
		--reduce 'examples/wordcount/wordcount.wasm merge' -o "$work/words" 2>"$work/said" || { cat "$work/said" >&2; exit 1; }
	same "$work/words" "$work/expected" "words counted from peer $at"
done

say "An array job, undisturbed, and with a peer of each release killed"
array() { as 0 new submit --detach --array 16 --map 'examples/longcount/longcount.wasm 15 5' 2>/dev/null; }
job=$(array)
as 2 old wait "$job"
as 2 old get "$job" -o - >"$work/undisturbed"
job=$(array)
# ends waits until so many tasks of the job are done.
ends() {
	until [ "$(as 0 new --json status "$job" | sed -n 's/.*"done":\([0-9]*\).*/\1/p' | head -n 1)" -ge "$1" ]; do sleep 0.2; done
}
ends 3
"$mesh" testnet kill 3 --dir "$work/net" >/dev/null
ends 6
"$mesh" testnet kill 1 --dir "$work/net" >/dev/null
as 2 old wait "$job"
as 2 old get "$job" -o - >"$work/disturbed"
same "$work/undisturbed" "$work/disturbed" "results with two peers killed"
as 0 new status "$job"

say "Upgrading an old peer in place"
release new
"$mesh" testnet restart 2 --dir "$work/net" >/dev/null
as 2 new get "$job" -o - >"$work/upgraded"
same "$work/undisturbed" "$work/upgraded" "results at the upgraded peer"
say "All is equal"
