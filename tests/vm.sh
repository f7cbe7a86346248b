#!/usr/bin/env bash
# Tries the unit's limits of memory in virtual machines of Debian 12 and 13, because many machines that run tests have no
# memory controller to try them with. The last line is `N passed, N failed`.
#
#   tests/vm.sh [--deb FILE] [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deb='' suites=()
while [ $# -gt 0 ]; do
    case $1 in
        --deb) deb=$2; shift ;;
        -*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2 ;;
        *) suites+=("$1") ;;
    esac
    shift
done
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
# shellcheck disable=SC2012  # names without anything strange in them
[ -n "$deb" ] || deb=$(ls -t "target/debian/codex-proxy_"*"_$(dpkg --print-architecture).deb" 2>/dev/null | head -n 1)
[ -f "$deb" ] || { echo "no package: run tests/package.sh first"; exit 1; }
faulty=$(tests/fault-build.sh)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests=3 # of each machine
jobs=()
for suite in "${suites[@]}"; do
    tests/systemd-box vm --suite "$suite" --deb "$deb" --add "$faulty:/opt/codex-proxy" \
        --add tests/support/big_bodies.py:/opt/big_bodies.py --timeout 600 tests/support/memory_limits.sh \
        >"$work/$suite" 2>"$work/$suite.log" &
    jobs+=($!)
done
passed=0 failed=0
for i in "${!suites[@]}"; do
    suite=${suites[i]}
    wait "${jobs[i]}" || tail -n 50 "$work/$suite.log"
    cat "$work/$suite"
    p=$(grep -c '^ok ' "$work/$suite" || true)
    # One that is not reported did not come to its end.
    passed=$((passed + p)) failed=$((failed + tests - p))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
