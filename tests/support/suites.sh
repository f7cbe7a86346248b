# shellcheck shell=bash
# What the scripts begin with that try the package on several suites. Sourced by them from the top directory; they read their
# arguments into $deb and $suites, where nothing means the newest package and all suites.

box=$PWD/tests/systemd-box
# Removed at the end, with every box in $names.
work=$(mktemp -d)
names=()
# shellcheck disable=SC2317  # called by the trap
clean() {
    local name
    for name in ${names[@]+"${names[@]}"}; do
        [ ! -e "$work/$name.tmux" ] || tmux -S "$work/$name.tmux" kill-server 2>/dev/null || true
        "$box" down --kill "$name"
    done
    rm -rf "$work"
}
trap clean EXIT

deb='' suites=()
usage() { # the script's own first words
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "tests/${0##*/}"
    exit 2
}
defaults() {
    [ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
    # shellcheck disable=SC2012  # names without anything strange in them
    [ -n "$deb" ] || deb=$(ls -t "target/debian/codex-proxy_"*"_$(dpkg --print-architecture).deb" 2>/dev/null | head -n 1)
    [ -f "$deb" ] || { echo "no package: run tests/package.sh first"; exit 1; }
}
codex_or_exit() { # sets $codex
    codex=${CODEX_BIN:-$(sed -n 's/^CODEX_BIN=//p' tests/.setup/env 2>/dev/null)}
    [ -x "$codex" ] || { echo "no Codex: run tests/setup.sh first"; exit 1; }
}
