#!/usr/bin/env bash
# Runs everything that is tested and ends with one line, `N passed, N failed`, over all of it: each check of style or
# dependencies counts as one test. Exits non-zero if anything failed or no test ran. Needs no terminal.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

tests/setup.sh </dev/null || { echo "0 passed, 1 failed"; exit 1; }
set -a
# shellcheck source=/dev/null
. tests/.setup/env
set +a
export CODEX_PROXY_TESTS_STRICT=1 # a facility that is missing fails its tests instead of skipping them
export CARGO_TERM_COLOR=never

passed=0 failed=0 failures=()
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# check NAME COMMAND…: one test, its output shown only when it fails.
check() {
    local name=$1
    shift
    if "$@" >"$out/check" 2>&1 </dev/null; then
        echo "ok      $name"
        passed=$((passed + 1))
    else
        echo "FAILED  $name"
        tail -n 200 "$out/check"
        failed=$((failed + 1))
        failures+=("$name")
    fi
}

# count NAME STATUS FILE PATTERN: adds up the closing lines of a runner; one that broke off without any counts as failed.
count() {
    local name=$1 status=$2 p f sums
    sums=$(sed -nE "$4" "$3" | awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
    read -r p f <<<"$sums"
    if [ "$f" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$p" -eq 0 ]; }; then f=1; fi
    echo "$name: $p passed, $f failed."
    passed=$((passed + p)) failed=$((failed + f))
    if [ "$f" -ne 0 ]; then failures+=("$name"); fi
}

check "cargo fmt" cargo fmt --check
check "cargo clippy" cargo clippy --all-targets --locked -- -D warnings
check "cargo clippy, with faults" cargo clippy --all-targets --locked --features test-faults -- -D warnings
check "cargo deny (licences, bans, sources)" "$CARGO_DENY" --locked check licenses bans sources
if timeout 120 "$CARGO_DENY" --locked fetch db >/dev/null 2>&1 </dev/null; then
    check "cargo deny (advisories)" "$CARGO_DENY" --locked check --disable-fetch advisories
else
    echo "skipped cargo deny (advisories): the advisory database cannot be reached from here"
fi

rm -rf target/fault-table.md target/matrix target/matrix.md
timeout 1800 cargo test --locked --no-fail-fast </dev/null 2>&1 | tee "$out/cargo"
count "cargo test" "${PIPESTATUS[0]}" "$out/cargo" 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p'
if [ -f target/fault-table.md ]; then echo "The fault table is in target/fault-table.md."; fi
if [ -f target/matrix.md ]; then echo "What a change of models costs is in target/matrix.md."; fi

timeout 300 "$OPENAI_PYTHON" tests/openai_parse.py </dev/null 2>&1 | tee "$out/openai" | sed 's/^/  /'
count "openai package" "${PIPESTATUS[0]}" "$out/openai" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'

timeout 300 "$OPENAI_PYTHON" tests/anthropic_parse.py </dev/null 2>&1 | tee "$out/anthropic" | sed 's/^/  /'
count "anthropic package" "${PIPESTATUS[0]}" "$out/anthropic" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'
timeout 300 "$GENAI_PYTHON" tests/gemini_parse.py </dev/null 2>&1 | tee "$out/genai" | sed 's/^/  /'
count "google-genai package" "${PIPESTATUS[0]}" "$out/genai" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'

# box*.sh are read where tests/units.sh takes them in.
check "shellcheck" shellcheck -x .ci/run tests/*.sh tests/support/memory_limits.sh tests/support/clock_jump.sh tests/systemd-box debian/codex-proxy.postinst debian/codex-proxy.prerm \
    debian/codex-proxy.postrm
if [ "$(id -u)" -eq 0 ]; then
    timeout 1800 tests/package.sh </dev/null 2>&1 | tee "$out/package" | sed 's/^/  /'
    count "package" "${PIPESTATUS[0]}" "$out/package" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'
    timeout 1500 tests/units.sh --full </dev/null 2>&1 | tee "$out/units" | sed 's/^/  /'
    count "units" "${PIPESTATUS[0]}" "$out/units" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'
    timeout 2400 tests/watchdog.sh </dev/null 2>&1 | tee "$out/watchdog" | sed 's/^/  /'
    count "watchdog" "${PIPESTATUS[0]}" "$out/watchdog" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'
    timeout 1200 tests/protocols.sh </dev/null 2>&1 | tee "$out/protocols" | sed 's/^/  /'
    count "protocols" "${PIPESTATUS[0]}" "$out/protocols" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'
    timeout 2400 tests/vm.sh </dev/null 2>&1 | tee "$out/vm" | sed 's/^/  /'
    count "virtual machines" "${PIPESTATUS[0]}" "$out/vm" 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p'
else
    echo "skipped the package, its units and their limits: containers, machines and apt-get need root"
fi

if [ ${#failures[@]} -gt 0 ]; then printf 'failed: %s\n' "${failures[@]}"; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
