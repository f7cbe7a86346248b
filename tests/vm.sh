#!/usr/bin/env bash
# Tries in virtual machines of Debian 12 and 13 what no container shows: the unit's limits of memory, because many machines
# that run tests have no memory controller, and a clock that is set. The last line is `N passed, N failed`.
#
#   tests/vm.sh [--deb FILE] [--only memory|clock] [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deb='' suites=() parts=(memory clock)
while [ $# -gt 0 ]; do
    case $1 in
        --deb) deb=$2; shift ;;
        --only) parts=("$2"); shift ;;
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
declare -A script=([memory]=memory_limits [clock]=clock_jump) tests=([memory]=3 [clock]=7)
jobs=()
for suite in "${suites[@]}"; do
    # One machine after another: each takes a processor and gigabytes.
    for part in "${parts[@]}"; do
        tests/systemd-box vm --suite "$suite" --deb "$deb" --add "$faulty:/opt/codex-proxy" \
            --add tests/support/big_bodies.py:/opt/big_bodies.py --timeout 900 "tests/support/${script[$part]}.sh" \
            >"$work/$suite.$part" 2>"$work/$suite.$part.log" || touch "$work/$suite.$part.broken"
    done &
    jobs+=($!)
done
wait "${jobs[@]}"
passed=0 failed=0
for suite in "${suites[@]}"; do
    for part in "${parts[@]}"; do
        [ ! -e "$work/$suite.$part.broken" ] || tail -n 50 "$work/$suite.$part.log"
        cat "$work/$suite.$part"
        p=$(grep -c '^ok ' "$work/$suite.$part" || true)
        # One that is not reported did not come to its end.
        passed=$((passed + p)) failed=$((failed + ${tests[$part]} - p))
    done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
