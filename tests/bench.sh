#!/usr/bin/env bash
# Measures how fast the proxy is, beside haproxy and beside no proxy at all: builds it for release, prints a table, and
# leaves all figures in target/bench/latest.json. `tests/bench.sh --quick` takes a minute; `--help` lists the options.
# Exits non-zero only if an answer was wrong, lost or failed. Wants Rust; installs haproxy and dbus-daemon if it may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'bench: %s\n' "$*" >&2; }

missing=()
for program in haproxy dbus-daemon; do
    # haproxy lies where only root looks.
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing from Debian: ${missing[*]}"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
    export DEBIAN_FRONTEND=noninteractive
    if ! { "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"; } </dev/null >/dev/null; then
        say "cannot install ${missing[*]}: what needs them is left out, which is ratios to haproxy and memory with the bus"
    fi
fi

PATH=$PATH:/usr/sbin exec cargo bench --locked --quiet --bench proxy -- "$@"
