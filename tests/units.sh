#!/usr/bin/env bash
# Tries the package and its user units on Debian 12 and 13, each with a real systemd (see tests/systemd-box), and ends
# with one line, `N passed, N failed`.
#
#   tests/units.sh [--full] [--deb FILE] [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one). --full also tries what the
# programs must do for the units: notify, take the socket, answer as the fallback, record how a run ended. Without it a
# drop-in starts the proxy beside its socket, which is enough for the package's part.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
box=$PWD/tests/systemd-box
port=8459 # codex-proxy.socket
units=(codex-proxy.socket codex-proxy.service codex-proxy-capped.service)

full=no deb='' suites=()
while [ $# -gt 0 ]; do
    case $1 in
        --full) full=yes ;;
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

work=$(mktemp -d)
names=()
# shellcheck disable=SC2317  # called by the trap
clean() {
    [ ${#names[@]} = 0 ] || "$box" down --kill "${names[@]}"
    rm -rf "$work"
}
trap clean EXIT

# --- one suite ---------------------------------------------------------------------------------------------------------
# check NAME COMMAND…: one test. What it printed is shown when it fails, and what the journal says.
check() {
    local what=$1 begun=$EPOCHREALTIME status=0
    shift
    # A subshell of its own with -e: the first thing in COMMAND that fails, fails it.
    set +e
    (set -e; "$@") >"$work/$name.check" 2>&1 </dev/null
    status=$?
    set -e
    printf '%s  %s: %s (%d ms)\n' "$([ $status = 0 ] && echo 'ok    ' || echo FAILED)" "$suite" "$what" \
        $(((${EPOCHREALTIME/./} - ${begun/./}) / 1000))
    if [ $status = 0 ]; then return; fi
    sed 's/^/    /' "$work/$name.check"
    root journalctl -b -n 40 --no-pager -o short-monotonic _UID=1000 2>&1 | sed 's/^/    /' || true
}
root() { "$box" exec "$name" "$@"; }
user() { "$box" user "$name" "$@"; }
ctl() { user systemctl --user "$@"; }
is() { # is UNIT PROPERTY VALUE: says what it is instead
    local value
    value=$(ctl show -P "$2" "$1")
    [ "$value" = "$3" ] || { echo "$1: $2 is '$value', not '$3'"; return 1; }
}
not() { if "$@"; then echo "should not be: $*"; return 1; fi; }
soon() { # soon SECONDS COMMAND…: until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@" >"$work/$name.soon" 2>&1; do
        if [ $SECONDS -ge $end ]; then cat "$work/$name.soon"; echo "not in time: $*"; return 1; fi
        sleep 0.1
    done
}
listening() { root ss -Htln "sport = :$port" | grep -q .; }
answers() { user curl -sS --fail --max-time 15 -o /dev/null "http://127.0.0.1:$port/health"; }
running() { root pgrep -u alice -a codex; }
main_pid() { ctl show -P MainPID codex-proxy.service; }
die() { ctl kill --kill-whom=main --signal="${1:-KILL}" codex-proxy.service; }
hit_cap() {
    ctl reset-failed codex-proxy.service
    ctl restart codex-proxy.service
    for _ in 1 2 3 4 5 6; do
        soon 5 is codex-proxy.service ActiveState active
        die
        sleep 0.3
    done
    soon 10 is codex-proxy-capped.service ActiveState active
    is codex-proxy.service ActiveState failed
    is codex-proxy.socket ActiveState failed
}
request() { # prints the status; the body goes to a file in the box
    local token
    token=$(user codex-proxyctl token --port $port)
    user curl -sS --max-time 45 -o /tmp/answer -w '%{http_code}\n' -H "Authorization: Bearer $token" \
        -H 'Content-Type: application/json' -d '{"model":"demo","input":"hello"}' "http://127.0.0.1:$port/v1/responses"
}

# Nothing to say about the units, but for the key that 252 does not know.
verify() {
    local unit said
    for unit in "${units[@]}"; do
        said=$(user systemd-analyze --user --man=no verify "/usr/lib/systemd/user/$unit" 2>&1) ||
            { echo "$said"; return 1; }
        said=$(grep -v "Unknown key 'RestartMode'" <<<"$said" || true)
        [ -z "$said" ] || { echo "$said"; return 1; }
        root test -e "/usr/share/man/man1/$(ctl show -P Documentation "$unit" | sed 's/.*man:\(.*\)(1).*/\1/').1.gz"
    done
}
exposure() { # 9.8 without any of the sandbox
    local unit
    for unit in codex-proxy.service codex-proxy-capped.service; do
        user systemd-analyze --user security --no-pager --threshold=45 "$unit" | tail -n 1
    done
}
asleep() {
    not running
    not listening
    for unit in codex-proxy.socket codex-proxy.service; do [ "$(ctl is-enabled $unit)" = disabled ]; done
    not root sh -c 'ls /etc/systemd/user/*.wants/codex-*'
}
enable() {
    ctl enable --now codex-proxy
    for unit in codex-proxy.socket codex-proxy.service; do
        [ "$(ctl is-enabled $unit)" = enabled ]
        is $unit ActiveState active
    done
    listening
}
upgrade() { # to another version: the service runs, from a file that exists
    local before
    before=$(main_pid)
    "$box" install "$name" "$1"
    is codex-proxy.service ActiveState active
    is codex-proxy.service NeedDaemonReload no
    listening
    [ "$(main_pid)" != "$before" ]
    not root sh -c "readlink /proc/$(main_pid)/exe | grep deleted"
}
upgrade_after_last_start() {
    ctl reset-failed codex-proxy.service
    for _ in 1 2 3 4 5 6; do ctl restart codex-proxy.service; done
    upgrade "$1"
}
one_start_too_many() { # what an upgrade must not run into: the restart stops a working proxy and is refused
    ctl reset-failed codex-proxy.service
    for _ in 1 2 3 4 5 6; do ctl restart codex-proxy.service; done
    not ctl restart codex-proxy.service
    is codex-proxy.service ActiveState failed
    ctl stop codex-proxy-capped.service
    ctl reset-failed codex-proxy.service codex-proxy.socket
    ctl start codex-proxy.service
}
upgrade_stopped() {
    ctl stop codex-proxy.socket codex-proxy.service
    "$box" install "$name" "$1"
    not running
    not listening
    ctl start codex-proxy.service
}
remove() {
    root apt-get remove -y -q codex-proxy
    not running
    not listening
    for unit in "${units[@]}"; do is "$unit" LoadState not-found; is "$unit" ActiveState inactive; done
}
purge() {
    root apt-get purge -y -q codex-proxy
    not root sh -c 'find / -xdev -name "*codex*" -not -path "/home/*" -not -path "/var/tmp/*" -print | grep .'
}

# What the programs must do for the units.
served() { answers; is codex-proxy.service SubState running; }
killed() {
    local before
    before=$(main_pid)
    die
    answers
    [ "$(main_pid)" != "$before" ]
    # shellcheck disable=SC2016  # expanded in the box
    user sh -c 'grep -q "signal killed KILL" "$XDG_RUNTIME_DIR/codex-proxy/exits"'
}
stopped_dead() {
    local before
    before=$(main_pid)
    die STOP
    answers # after the watchdog's ten seconds
    [ "$(main_pid)" != "$before" ]
    # shellcheck disable=SC2016
    user sh -c 'grep -q "watchdog killed KILL" "$XDG_RUNTIME_DIR/codex-proxy/exits"'
}
reload() { local before; before=$(main_pid); ctl reload codex-proxy.service; answers; [ "$(main_pid)" = "$before" ]; }
name_held() { user busctl --user --timeout=2 status org.codexproxy.Proxy1; }
capped() {
    hit_cap
    answers
    [ "$(request)" = 503 ]
    user grep -q 'codex-proxyctl recover' /tmp/answer
}
recover() {
    user codex-proxyctl recover
    is codex-proxy.service ActiveState active
    is codex-proxy-capped.service ActiveState inactive
    [ "$(request)" = 200 ]
}
upgrade_capped() {
    hit_cap
    upgrade "$1"
    is codex-proxy-capped.service ActiveState inactive
    answers
}
port_taken() {
    ctl stop codex-proxy.socket codex-proxy.service
    root systemd-run --quiet --unit=holder --property=Type=exec python3 -c "
import socket, time
s = socket.create_server(('127.0.0.1', $port)); time.sleep(600)"
    soon 5 listening
    not ctl start codex-proxy.socket
    soon 10 is codex-proxy-capped.service ActiveState inactive
    is codex-proxy-capped.service Result success
    is codex-proxy-capped.service NRestarts 0
    root systemctl stop holder
    ctl reset-failed codex-proxy.socket
    ctl start codex-proxy.service
    answers
}
remove_capped() { "$box" install "$name" "$1"; ctl start codex-proxy.service; hit_cap; remove; }

try_suite() {
    suite=$1 name=$2
    local v
    "$box" up "$name" --suite "$suite"
    check "install" "$box" install "$name" "$deb"
    check "the units hold nothing that this systemd complains of" verify
    check "the services are sandboxed" exposure
    check "installing starts and enables nothing" asleep
    if [ $full = no ]; then
        root mkdir -p /etc/systemd/user/codex-proxy.service.d
        printf '%s\n' '[Service]' Type=exec WatchdogSec=0 ExecStart= \
            'ExecStart=/usr/bin/codex-proxy --listen 127.0.0.1:8460' >"$work/$name.conf"
        "$box" copy "$name" "$work/$name.conf" /etc/systemd/user/codex-proxy.service.d/beside.conf
        ctl daemon-reload
    fi
    check "one command enables and starts" enable
    if [ $full = yes ]; then
        check "requests are served through the socket" served
        check "the bus name is held" name_held
        check "reload keeps the process" reload
        check "a killed proxy is back, and how it ended is recorded" killed
        check "a proxy that hangs is replaced" stopped_dead
        check "the fallback answers when the starts are used up" capped
        check "recover brings the proxy back" recover
        check "a taken port is left alone" port_taken
    fi
    check "upgrade restarts what runs" upgrade "$work/2.deb"
    check "the seventh start in ten minutes is refused" one_start_too_many
    check "upgrade after the last allowed start" upgrade_after_last_start "$work/3.deb"
    check "upgrade leaves alone what is stopped" upgrade_stopped "$work/4.deb"
    if [ $full = yes ]; then
        check "upgrade while the fallback answers" upgrade_capped "$work/5.deb"
    fi
    check "removal stops everything" remove
    if [ $full = yes ]; then
        check "removal stops the fallback" remove_capped "$work/5.deb"
    fi
    if [ $full = no ]; then root rm -r /etc/systemd/user/codex-proxy.service.d; fi
    check "purge leaves nothing" purge
    "$box" down --kill "$name"
}

# --- all suites --------------------------------------------------------------------------------------------------------
# The same package under higher versions.
dpkg-deb -R "$deb" "$work/tree"
version=$(dpkg-deb -f "$deb" Version)
for v in 2 3 4 5; do
    sed -i "s/^Version: .*/Version: $version+$v/" "$work/tree/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "$work/tree" "$work/$v.deb" >/dev/null
done

sandbox() { sed -n '/^# Without namespaces of its own/,/^$/p' "$1" | grep .; }
{
    suite=units name=none
    check "both services have the same sandbox" \
        diff <(sandbox systemd/codex-proxy.service) <(sandbox systemd/codex-proxy-capped.service)
} | tee "$work/result"

"$box" build "${suites[@]}"
jobs=()
for suite in "${suites[@]}"; do
    names+=("units-$$-$suite")
    try_suite "$suite" "units-$$-$suite" >"$work/result.$suite" 2>&1 &
    jobs+=($!)
done
broken=0
for job in "${jobs[@]}"; do wait "$job" || broken=$((broken + 1)); done
for suite in "${suites[@]}"; do cat "$work/result.$suite"; done | tee -a "$work/result"

passed=$(grep -c '^ok ' "$work/result" || true)
failed=$(($(grep -c '^FAILED ' "$work/result" || true) + broken))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
