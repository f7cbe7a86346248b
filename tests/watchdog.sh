#!/usr/bin/env bash
# Injects faults into the installed proxy and shows what its watchdog makes of them, on Debian 12 and 13, each with a real
# systemd (see tests/systemd-box). Ends with one line, `N passed, N failed`.
#
#   tests/watchdog.sh [--deb FILE] [--quick] [--idle MINUTES] [--only PART]... [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one). --quick: fewer kills. --idle: also
# measures for so long what the watchdog costs while nothing happens. PART is one of faults, defects, stops, kills, limit,
# sight: each has a box of its own, and all run side by side. KILLS=N, WKILLS=N: how many kills of the proxy (200), and of
# the watchdog (200). Printed at the end, and left in target/units/: SUITE.faults.txt, what became of each fault, and
# SUITE.blind.txt, what the watchdog cannot see with and what that costs.
#
# The checks are in tests/support/box_watchdog.sh, made of what is in tests/support/box.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/support/suites.sh
. tests/support/suites.sh
port=8459 # codex-proxy.socket

kills=${KILLS:-200} wkills=${WKILLS:-200} seconds=90 idle='' parts=()
while [ $# -gt 0 ]; do
    case $1 in
        --deb) deb=$2; shift ;;
        --quick) kills=20 wkills=12 seconds=40 ;;
        --idle) idle=$2; shift ;;
        --only) parts+=("$2"); shift ;;
        -*) usage ;;
        *) suites+=("$1") ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(faults defects stops kills limit sight)
defaults

faulty=$(tests/fault-build.sh)
# Python in the boxes is the smallest there is.
json=$(python3 -c 'import json, os; print(os.path.dirname(json.__file__))')
kept=$PWD/target/units
mkdir -p "$kept"
# shellcheck source=tests/support/box.sh
. tests/support/box.sh
# shellcheck source=tests/support/box_watchdog.sh
. tests/support/box_watchdog.sh

# --- the boxes of a suite ----------------------------------------------------------------------------------------------
try_faults() {
    check "a killed proxy is back" dies
    check "so is one that ends by itself" exits
    check "a crash loop: a person is told, nothing is started" loops
    check "a crash loop with a short limit: started once, when the limit allows" loops_for_a_while
    check "a stranger on the port is named and left alone" taken_by_stranger
    check "another user on the port is named and left alone" taken_by_other_user
    check "a leftover on the port is ended" taken_by_leftover leftover 'the port taken by a leftover of ours'
    check "a proxy with a terminal is named and left alone" taken_by_watched_leftover
    check "a leftover whose program was replaced is ended" taken_by_leftover replaced_leftover \
        'the port taken by a leftover, its program replaced'
    check "a proxy that is stopped is replaced" hangs
    check "a proxy whose threads all hang is replaced" wedges
}
try_defects() {
    check "a panic in one exchange is seen, and nothing is restarted" panics
    check "a panic at every start ends at the limit" panics_at_start
}
try_stops() {
    check "stopped by codex-proxyctl, it stays so" stays_stopped user codex-proxyctl stop
    check "stopped by systemctl, it stays so" stays_stopped stop_both
    check "stopped during the pause before a restart, it stays so" stays_stopped stop_in_pause
    check "nobody wakes a service whose socket listens" stays_stopped stop_service
}
try_kills() {
    check "each of $kills deaths is recorded once" many_kills
    check "$wkills kills of the watchdog lose nothing and repeat nothing" watchdog_killed
}
try_limit() {
    check "no start beyond the package's limit" around_the_limit $((seconds / 2))
    ctl reset-failed $service codex-proxy.socket
    ctl start $service
    check "no start beyond a short limit" around_a_short_limit "$seconds"
}
try_sight() {
    check "lies in the journal and on the bus move nothing" unmoved lies
    check "nor does the proxy's name, borrowed while it is stopped" borrowed_name
    [ -z "$idle" ] || check "what it costs" costs
    limit_off
    check "journald is restarted" without 'journald restarted' end_journald nothing
    check "the journal is vacuumed" without 'journal rotated and vacuumed' end_entries nothing
    check "its reader of the journal is killed" without 'journalctl killed' end_reader nothing
    check "its reader of the journal is killed again and again" without 'journalctl killed six times' end_reader_often nothing
    check "the journal cannot be read" without 'journal unreadable, journalctl killed' hide_journal show_journal
    check "the manager executes itself anew" without 'systemctl --user daemon-reexec' end_manager nothing
    check "the session bus is killed" without 'session bus killed' end_bus nothing
    check "there is no session bus" without 'session bus stopped' stop_bus start_bus
}
try_box() { # try_box PART
    check "install and start" begin
    "try_$1"
    "$box" down --kill "$name"
}

# --- all suites --------------------------------------------------------------------------------------------------------
# The same package under a higher version.
dpkg-deb -R "$deb" "$work/tree"
sed -i "s/^Version: .*/Version: $(dpkg-deb -f "$deb" Version)+2/" "$work/tree/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$work/tree" "$work/2.deb" >/dev/null

"$box" build "${suites[@]}"
jobs=()
for suite in "${suites[@]}"; do
    for part in "${parts[@]}"; do
        name=inj-$$-$suite-$part
        names+=("$name")
        try_box "$part" >"$work/result.$name" 2>&1 &
        jobs+=($!)
    done
done
broken=0
for job in "${jobs[@]}"; do wait "$job" || broken=$((broken + 1)); done
for name in "${names[@]}"; do cat "$work/result.$name"; done | tee "$work/result"
table() { # table WHAT SUFFIX HEAD PART…: prints and keeps the rows of these boxes, if any was tried
    local file=$kept/$suite.$1.txt part rows=()
    for part in "${@:4}"; do
        if [ -e "$work/inj-$$-$suite-$part.$2" ]; then rows+=("$work/inj-$$-$suite-$part.$2"); fi
    done
    [ ${#rows[@]} -gt 0 ] || return 0
    { echo "$3"; cat "${rows[@]}"; } >"$file"
    echo
    echo "$suite (target/units/$suite.$1.txt):"
    sed 's/^/    /' "$file"
}
for suite in "${suites[@]}"; do
    table faults rows 'injection | fault named | detected after ms | action(s) | end | verified how' faults defects
    table blind blind 'without | a death at that moment is recorded after ms | Trouble | a later death, ms | sight is back after' sight
done
echo
passed=$(grep -c '^ok ' "$work/result" || true)
failed=$(($(grep -c '^FAILED ' "$work/result" || true) + broken))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
