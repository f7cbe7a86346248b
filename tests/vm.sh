#!/usr/bin/env bash
# Tries in virtual machines of Debian 12 and 13 what no container shows: the unit's limits of memory, because many machines
# that run tests have no memory controller, and a clock that is set. The last line is `N passed, N failed`.
#
#   tests/vm.sh [--deb FILE] [--only memory|clock] [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/support/suites.sh
. tests/support/suites.sh

parts=(memory clock)
while [ $# -gt 0 ]; do
    case $1 in
        --deb) deb=$2; shift ;;
        --only) parts=("$2"); shift ;;
        -*) usage ;;
        *) suites+=("$1") ;;
    esac
    shift
done
defaults
faulty=$(tests/fault-build.sh)

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
