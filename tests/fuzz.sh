#!/usr/bin/env bash
# Tries every decoder on inputs that are nearly right, for so many seconds each (450, which is more than an hour in all),
# two at a time: `tests/fuzz.sh [SECONDS] [TARGET]…`. Wants Rust. What failed is in target/fuzz/; keep it in
# tests/fuzz/found/TARGET/ once it is mended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
FUZZ_SECONDS=${1:-450}
export FUZZ_SECONDS
shift || true
exec cargo test --locked --release --test fuzz -- --nocapture --test-threads 2 "$@"
