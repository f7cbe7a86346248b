#!/usr/bin/env bash
# Builds the proxy with the cargo feature `test-faults` (see src/proxy/testfault.rs) and prints where it lies. It has a
# target directory of its own, so that nobody takes it for the ordinary one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Without debug information: it is copied into machines whose memory is their disk.
export CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_DEV_STRIP=true
nice cargo build --locked --quiet --features test-faults --bin codex-proxy --target-dir target/faults >&2
echo "$PWD/target/faults/debug/codex-proxy"
