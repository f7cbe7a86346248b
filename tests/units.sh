#!/usr/bin/env bash
# Tries the package and its user units on Debian 12 and 13, each with a real systemd (see tests/systemd-box), and ends
# with one line, `N passed, N failed`.
#
#   tests/units.sh [--full] [--deb FILE] [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one). --full also tries what the
# programs must do for the units: notify, take the socket, answer as the fallback, record how a run ended. Without it a
# drop-in starts the proxy beside its socket, which is enough for the package's part. KILLS=N: how many kills under load
# (200). What a person may want to read of a full run is left in target/units/: SUITE.bus.txt, SUITE.tui.txt.
#
# The checks are made of what is in tests/support/box.sh; some of --full's are in tests/support/box_faults.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/support/suites.sh
. tests/support/suites.sh
port=8459 # codex-proxy.socket
units=(codex-proxy.socket codex-proxy.service codex-proxy-capped.service codex-watchdog.service)

full=no
while [ $# -gt 0 ]; do
    case $1 in
        --full) full=yes ;;
        --deb) deb=$2; shift ;;
        -*) usage ;;
        *) suites+=("$1") ;;
    esac
    shift
done
defaults

kills=${KILLS:-200}
if [ $full = yes ]; then
    codex_or_exit
    command -v tmux >/dev/null || { echo "no tmux: run tests/setup.sh first"; exit 1; }
fi

faulty=''
[ $full = no ] || faulty=$(tests/fault-build.sh)
kept=$PWD/target/units
mkdir -p "$kept"
# shellcheck source=tests/support/box.sh
. tests/support/box.sh
# shellcheck source=tests/support/box_faults.sh
. tests/support/box_faults.sh

# --- one suite ---------------------------------------------------------------------------------------------------------
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
        user systemd-analyze --user security --no-pager --threshold=25 "$unit" | tail -n 1
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
    for unit in codex-proxy.socket codex-proxy.service codex-watchdog.service; do
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
upgrade_stopped() { # the proxy; the watchdog runs on, as the new version
    local before
    ctl stop codex-proxy.socket codex-proxy.service
    before=$(ctl show -P MainPID codex-watchdog.service)
    "$box" install "$name" "$1"
    is codex-proxy.service ActiveState inactive
    not listening
    is codex-watchdog.service ActiveState active
    [ "$(ctl show -P MainPID codex-watchdog.service)" != "$before" ]
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
    not root sh -c 'find / -xdev -name "*codex*" -not -path "*/alice/*" -not -path "/var/tmp/*" -not -path /usr/local/bin/codex -print | grep .'
}

# What the programs must do for the units.
served() { answers; is codex-proxy.service SubState running; }
killed() {
    local before
    before=$(main_pid)
    die
    answers
    [ "$(main_pid)" != "$before" ]
    ended signal killed KILL
}
stopped_dead() {
    local before
    before=$(main_pid)
    die STOP
    answers # after the watchdog's ten seconds
    [ "$(main_pid)" != "$before" ]
    ended watchdog killed KILL
}
# ended RESULT CODE STATUS: the run that serves now has written in the journal how the one before it ended.
ended() {
    soon 5 root sh -c "journalctl -b -o json _PID=$(main_pid) CODEX_RESULT=$1 CODEX_EXIT_CODE=$2 CODEX_EXIT_STATUS=$3 | grep -q 'did not end well'"
}
reload() { local before; before=$(main_pid); ctl reload codex-proxy.service; answers; [ "$(main_pid)" = "$before" ]; }
name_held() { user busctl --user --timeout=2 status org.codexproxy.Proxy1; }
capped() {
    hit_cap
    answers
    sessions_begin
    [ "$(request)" = 503 ]
    user grep -q 'codex-proxyctl recover' /tmp/answer
    sessions_wait
}
recover() {
    user codex-proxyctl recover
    is codex-proxy.service ActiveState active
    is codex-proxy-capped.service ActiveState inactive
    [ "$(request)" = 200 ]
    sessions_go_on
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

# --- a real session ---
codex_session() {
    user sh -c 'mkdir -p ~/.codex && printf "# mine\n[analytics]\nenabled = false\n" >~/.codex/config.toml && cp ~/.codex/config.toml ~/before'
    user codex-proxyctl setup --default --model demo
    codex_exec demo 'show me'
    user grep -q 'codex-proxy works here' /home/alice/work/codex-proxy-demo.md
    # Codex notes down that it trusts the directory; that is its own and stays.
    user codex-proxyctl restore
    not user grep -q codex-proxy /home/alice/.codex/config.toml
    user sh -c 'head -n 3 ~/.codex/config.toml | cmp - ~/before'
    user codex-proxyctl setup --default --model demo
}
killed_in_mid_turn() {
    configure "$upstream"
    ctl reload codex-proxy.service
    slow_upstream
    codex_exec slow 'go on' >"$work/$name.turn" 2>&1 &
    local turn=$!
    soon 20 test -e "$work/$name.begun"
    die
    wait $turn || { cat "$work/$name.turn"; return 1; }
    grep -q 'told in full' "$work/$name.turn" || { cat "$work/$name.turn"; return 1; }
}
replaced() { [ "$(main_pid)" != "$1" ]; }
killed_under_load() {
    no_cap
    local token before
    token=$(user codex-proxyctl token --port $port)
    rm -f "$work/$name.stop"
    "$box" hostexec "$name" env TOKEN="$token" python3 tests/support/hammer.py $port "$work/$name.stop" >"$work/$name.hammer" &
    local load=$!
    for _ in $(seq "$kills"); do
        before=$(main_pid)
        root kill -9 "$before"
        soon 5 replaced "$before"
        soon 5 is codex-proxy.service ActiveState active
    done
    touch "$work/$name.stop"
    wait $load
    cat "$work/$name.hammer"
    grep -q ' refused 0 ' "$work/$name.hammer"
    grep -q ' quarantined 0' "$work/$name.hammer"
    with_cap
}
config_error() {
    local before
    configure '[proxy]
head_hold = 3'
    ctl restart codex-proxy.service
    before=$(main_pid)
    [ "$(request)" = 400 ]
    user grep -q head_hold_s /tmp/answer
    user sh -c "curl -s http://127.0.0.1:$port/health | grep -q config-error"
    is codex-proxy.service NRestarts 0
    configure ''
    ctl reload codex-proxy.service
    soon 5 sh -c "[ \"\$('$box' user '$name' curl -s http://127.0.0.1:$port/health | grep -c ready)\" = 1 ]"
    [ "$(request)" = 200 ]
    [ "$(main_pid)" = "$before" ]
}
token_unreadable() {
    local state=/home/alice/.local/state/codex-proxy
    root chown root:root $state/token
    ctl restart codex-proxy.service
    user sh -c "curl -s http://127.0.0.1:$port/health | grep -q config-error"
    user sh -c "curl -s -d '{\"model\":\"demo\",\"input\":\"x\"}' http://127.0.0.1:$port/v1/responses | grep -q 'the token cannot be read'"
    is codex-proxy.service NRestarts 0
    root chown alice:alice $state/token
    ctl reload codex-proxy.service
    soon 5 sh -c "[ \"\$('$box' user '$name' curl -s http://127.0.0.1:$port/health | grep -c ready)\" = 1 ]"
    [ "$(request)" = 200 ]
}
state_unwritable() {
    local state=/home/alice/.local/state/codex-proxy
    root sh -c "rm $state/opaque.key; chown root:root $state; chmod 755 $state"
    ctl restart codex-proxy.service
    user sh -c "curl -s http://127.0.0.1:$port/health | grep -q degraded"
    [ "$(request)" = 200 ]
    root sh -c "chown alice:alice $state; chmod 700 $state"
    ctl restart codex-proxy.service
    user sh -c "curl -s http://127.0.0.1:$port/health | grep -q ready"
}
two_users() { # a second user gets a port of her own, and nothing of the first one's
    root useradd -m bob
    local id
    id=$(root id -u bob)
    root systemctl start "user@$id.service"
    bob() {
        root runuser -u bob -- env XDG_RUNTIME_DIR="/run/user/$id" \
            DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$id/bus" "$@"
    }
    soon 20 bob systemctl --user is-active --quiet dbus.socket
    # The port is somebody else's: no token for it.
    not bob codex-proxyctl token --port $port
    (bob codex-proxyctl token --port $port 2>&1 || true) | grep "user $(root id -u alice)"
    bob sh -c 'cd && codex-proxyctl setup --default --model demo'
    local own
    own=$(bob systemctl --user show -P Listen codex-proxy.socket | sed 's/.*:\([0-9]*\) .*/\1/')
    echo "bob listens on $own"
    [ -n "$own" ] && [ "$own" != $port ]
    bob sh -c "grep -q ':$own/v1' ~/.codex/config.toml"
    bob sh -c "cd && codex-proxyctl demo --port $own"
    not test "$(bob codex-proxyctl token --port "$own")" = "$(user codex-proxyctl token --port $port)"
    # Neither token opens the other's proxy.
    [ "$(bob curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $(bob codex-proxyctl token --port "$own")" \
        "http://127.0.0.1:$port/v1/models")" = 401 ]
    bob systemctl --user stop codex-proxy.socket codex-proxy.service
    root systemctl stop "user@$id.service"
    soon 10 root sh -c '! pgrep -u bob'
    root userdel -r bob
}
# --- defects, in a build that has them on demand ---
post() { # post BODY CURL-ARGUMENT…: prints the status, 000 if the connection broke; the body goes to a file in the box
    local token
    token=$(user codex-proxyctl token --port $port)
    user curl -s --max-time 45 -o /tmp/answer -w '%{http_code}\n' -H "Authorization: Bearer $token" "${@:2}" -d "$1" \
        "http://127.0.0.1:$port/v1/responses" || true
}
panics() {
    local before
    misbehaving
    before=$(main_pid)
    [ "$(post '{"model":"demo","input":"panic"}' -H 'x-test-fault: panic')" = 400 ]
    user grep 'internal_error.*req_\|req_.*internal_error' /tmp/answer
    soon 5 root sh -c "journalctl -b -o json _PID=$before CODEX_SIGNAL=panic | grep -q CODEX_EVENT_ID"
    [ "$(request)" = 200 ]
    [ "$(main_pid)" = "$before" ]
    behaving
}
wedged() { # no worker moves any more, so nothing says that it lives
    local before
    misbehaving
    before=$(main_pid)
    [ "$(post '{"model":"demo","input":"wedge"}' -H 'x-test-fault: wedge')" = 000 ] # broken by the watchdog's SIGKILL
    answers
    [ "$(main_pid)" != "$before" ]
    ended watchdog killed KILL
    behaving
}
poison() { # repeated by its client as Codex does, beside another request that is under way at the first death
    local poison='{"model":"demo","input":"poison"}' innocent='{"model":"slow","stream":true,"input":"innocent"}' host tries
    configure "$upstream"
    misbehaving
    is codex-proxy.service NRestarts 0
    rm -f "$work/$name.begun"
    "$box" hostexec "$name" python3 tests/support/slow_upstream.py 9000 "$work/$name.begun" &
    host=$!
    soon 5 root sh -c "ss -Htln 'sport = :9000' | grep -q ."
    post "$innocent" >"$work/$name.innocent" &
    soon 10 test -e "$work/$name.begun"
    [ "$(post "$poison" -H 'x-test-fault: abort')" = 000 ]
    wait $!
    soon 5 is codex-proxy.service NRestarts 1
    # Both are suspects now and take turns, in whichever order they come: one death more, and none for the innocent.
    post "$poison" -H 'x-test-fault: abort' >"$work/$name.poison" &
    tries=1
    until [ "$(post "$innocent")" = 200 ] && user grep -q 'told in full' /tmp/answer; do
        [ $tries -lt 3 ] || { user cat /tmp/answer; return 1; }
        tries=$((tries + 1))
    done
    wait $!
    [ "$(cat "$work/$name.poison")" = 000 ]
    soon 5 is codex-proxy.service NRestarts 2
    soon 5 is codex-proxy.service ActiveState active
    ended signal killed ABRT
    # Known by its body, not by what it would do.
    [ "$(post "$poison" -H 'x-test-fault: abort')" = 400 ]
    user grep 'request_quarantined' /tmp/answer | grep req_
    [ "$(post "$poison")" = 400 ]
    [ "$(post "$innocent")" = 200 ]
    [ "$(request)" = 200 ]
    is codex-proxy.service NRestarts 2
    kill $host
    behaving
}
without_faults() { # the words are found where they are, and not in the package
    local words='misbehaving because a test asks for it'
    grep -qaF "$words" "$faulty"
    not grep -aF "$words" "$work/tree/usr/bin/codex-proxy"
}

try_suite() {
    suite=$1 name=$2
    local v
    "$box" up "$name" --suite "$suite" ${codex:+--bind "$codex:/usr/local/bin/codex"}
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
        check "the bus shows, takes calls and tells of failures" bus_transcript
        check "reload keeps the process" reload
        check "figures" figures
        check "a killed proxy is back, and how it ended is recorded" killed
        check "a proxy that hangs is replaced" stopped_dead
        check "Codex edits a file through the installed proxy, and its settings come back" codex_session
        check "a turn of Codex outlives a kill in mid-stream" killed_in_mid_turn
        check "no connection is refused in $kills kills under load" killed_under_load
        check "a wrong configuration is told and costs no start" config_error
        check "a token that cannot be read is told" token_unreadable
        check "state that cannot be written does not keep requests from being served" state_unwritable
        check "a full disk does not keep requests from being served" no_room
        check "no room for records does not either" no_room_for_records
        check "damaged files are set aside, told and made anew" damaged
        check "no secret is in the journal, on the bus, in /proc or in a file of another purpose" secrets
        check "two users have a port and a token each" two_users
        check "a defect costs one request, not the process" panics
        check "a proxy whose threads all hang is replaced" wedged
        check "a request that kills the process does so twice, then it is refused; others are served" poison
        check "the fallback answers when the starts are used up, and turns of Codex wait" capped
        check "recover brings the proxy back, and the turns go on" recover
        check "a taken port is left alone" port_taken
    fi
    if [ $full = yes ]; then
        check "a turn of Codex outlives an upgrade in mid-stream" upgrade_in_mid_turn "$work/2.deb"
    fi
    check "upgrade restarts what runs" upgrade "$work/3.deb"
    check "the seventh start in ten minutes is refused" one_start_too_many
    check "upgrade after the last allowed start" upgrade_after_last_start "$work/4.deb"
    check "upgrade leaves alone what is stopped" upgrade_stopped "$work/5.deb"
    if [ $full = yes ]; then
        check "upgrade while the fallback answers" upgrade_capped "$work/6.deb"
    fi
    check "removal stops everything" remove
    if [ $full = yes ]; then
        check "removal stops the fallback" remove_capped "$work/6.deb"
    fi
    if [ $full = no ]; then root rm -r /etc/systemd/user/codex-proxy.service.d; fi
    check "purge leaves nothing" purge
    "$box" down --kill "$name"
}

# --- all suites --------------------------------------------------------------------------------------------------------
# The same package under higher versions.
dpkg-deb -R "$deb" "$work/tree"
version=$(dpkg-deb -f "$deb" Version)
for v in 2 3 4 5 6; do
    sed -i "s/^Version: .*/Version: $version+$v/" "$work/tree/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "$work/tree" "$work/$v.deb" >/dev/null
done

sandbox() { sed -n '/^# Without namespaces of its own/,/^$/p' "$1" | grep .; }
{
    suite=units name=none
    check "both services have the same sandbox" \
        diff <(sandbox systemd/codex-proxy.service) <(sandbox systemd/codex-proxy-capped.service)
    if [ $full = yes ]; then check "the package cannot be asked to misbehave" without_faults; fi
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
