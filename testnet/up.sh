#!/bin/sh
# Builds mesh and meshd, and starts a testnet: testnet/up.sh [--peers N] [--slots N] [--dir DIR]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
make -s -C "$root" build
exec "$root/bin/mesh" testnet up "$@"
