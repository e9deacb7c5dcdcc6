#!/bin/sh
# build.sh [--check]: builds the C programs, each to a .wasm beside its source; with --check it builds them elsewhere and
# fails unless they are the same as the ones that are there.
#
# It wants Debian 12's clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32 binaryen: another compiler makes other bytes.
set -eu
cd "$(dirname "$0")/.."

check=
case "${1-}" in
"") ;;
--check) check=1 ;;
*) echo "usage: $0 [--check]" >&2; exit 2 ;;
esac

for tool in clang-14 wasm-ld-14 wasm-opt; do
	command -v $tool >/dev/null || {
		echo "$0: no $tool; apt-get install clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32 binaryen" >&2
		exit 1
	}
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=0
build() { # SOURCE FLAGS...
	source=$1 wasm=${1%.c}.wasm
	shift
	clang-14 --target=wasm32-wasi -O2 -Wall -Werror -I sandbox/guest -c -o "$work/object.o" "$source"
	clang-14 --target=wasm32-wasi -Wl,-s -o "$work/linked.wasm" "$work/object.o" "$@" # without -O: it would call wasm-opt
	wasm-opt --mvp-features --enable-simd -O2 --strip-debug --strip-producers -o "$work/out.wasm" "$work/linked.wasm"
	if [ -z "$check" ]; then
		cp "$work/out.wasm" "$wasm"
		echo "$wasm: $(wc -c <"$wasm") bytes"
	elif cmp -s "$work/out.wasm" "$wasm"; then
		echo "$wasm: as built"
	else
		echo "$wasm: not what $source builds to" >&2
		failed=1
	fi
}

build examples/noop/noop.c -nostdlib -Wl,--no-entry -Wl,-z,stack-size=16
build examples/index/index.c
build examples/burn/burn.c
build examples/wordcount/wordcount.c
build examples/longcount/longcount.c
build bench/kernels/nbody.c -lm
build bench/kernels/mandelbrot.c
build bench/kernels/sha256.c
build sandbox/testdata/contract/contract.c -lm
build sandbox/testdata/autosave/autosave.c
exit $failed
