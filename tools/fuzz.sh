#!/bin/sh
# Runs every fuzz target for a number of inputs: tools/fuzz.sh [COUNT [PACKAGE...]]
# A package is a folder such as ./protocol. An input that fails is kept by go test in the
# package's testdata/fuzz: commit it with the fix.
set -eu
cd "$(dirname "$0")/.."
count=${1:-20000}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- .

targets=$(grep -rhoH --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' "$@" | sort)
[ -n "$targets" ] || { echo "$0: no fuzz target under $*" >&2; exit 1; }
echo "$targets" | while IFS=: read -r file target; do
	target=${target#func }
	echo "== $(dirname "$file") $target"
	go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${count}x" </dev/null
done
