#!/bin/sh
# Ends a testnet and removes all that it kept: testnet/down.sh [--dir DIR]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
make -s -C "$root" build
exec "$root/bin/mesh" testnet down "$@"
