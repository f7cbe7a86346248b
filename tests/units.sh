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

kills=${KILLS:-200}
codex=${CODEX_BIN:-$(sed -n 's/^CODEX_BIN=//p' tests/.setup/env 2>/dev/null)}
[ $full = no ] || [ -x "$codex" ] || { echo "no Codex: run tests/setup.sh first"; exit 1; }

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

# --- a real session ---
# configure TEXT: the user's configuration.
configure() {
    printf '%s\n' "$1" >"$work/$name.toml"
    user mkdir -p /home/alice/.config/codex-proxy
    "$box" copy "$name" "$work/$name.toml" /home/alice/.config/codex-proxy/config.toml
    root chown alice:alice /home/alice/.config/codex-proxy/config.toml
}
codex_exec() { # codex_exec MODEL PROMPT: prints the last message
    user sh -c "mkdir -p ~/work && cd ~/work && NO_PROXY=127.0.0.1 timeout 120 codex exec --skip-git-repo-check \
        -s danger-full-access -m '$1' '$2' </dev/null"
}
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
upstream=$(printf '%s\n' '[providers.slow]' 'base_url = "http://127.0.0.1:9000/v1"' 'dialect = "openai"' 'accounts = []' \
    '[models.slow]' 'routes = ["slow/m"]')
killed_in_mid_turn() {
    configure "$upstream"
    ctl reload codex-proxy.service
    rm -f "$work/$name.begun"
    "$box" hostexec "$name" python3 tests/support/slow_upstream.py 9000 "$work/$name.begun" &
    soon 5 root sh -c "ss -Htln 'sport = :9000' | grep -q ."
    codex_exec slow 'go on' >"$work/$name.turn" 2>&1 &
    local turn=$!
    soon 20 test -e "$work/$name.begun"
    die
    wait $turn || { cat "$work/$name.turn"; return 1; }
    grep -q 'told in full' "$work/$name.turn" || { cat "$work/$name.turn"; return 1; }
    root pkill -f slow_upstream.py || pkill -f "slow_upstream.py 9000 $work/$name.begun"
}
no_cap() { # the cap would end the tests below; the package's own is tried elsewhere
    user mkdir -p /home/alice/.config/systemd/user/codex-proxy.service.d
    user sh -c 'printf "[Unit]\nStartLimitIntervalSec=0\n" >~/.config/systemd/user/codex-proxy.service.d/cap.conf'
    ctl daemon-reload
}
with_cap() { user rm -r /home/alice/.config/systemd/user/codex-proxy.service.d; ctl daemon-reload; ctl reset-failed codex-proxy.service; }
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
        soon 5 test "$(main_pid)" != "$before"
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
poison() { # a request that is under way whenever the process dies of a fault of its own
    local token
    no_cap
    configure "$upstream"
    ctl restart codex-proxy.service
    "$box" hostexec "$name" python3 tests/support/slow_upstream.py 9000 "$work/$name.begun" --forever &
    soon 5 root sh -c "ss -Htln 'sport = :9000' | grep -q ."
    token=$(user codex-proxyctl token --port $port)
    for _ in 1 2; do
        rm -f "$work/$name.begun"
        user curl -s --max-time 20 -o /dev/null -H "Authorization: Bearer $token" \
            -d '{"model":"slow","stream":true,"input":"poison"}' "http://127.0.0.1:$port/v1/responses" &
        soon 10 test -e "$work/$name.begun"
        die ILL # not SEGV: sent from outside, the first of those only takes away the handler for overflown stacks
        soon 5 answers
    done
    user curl -s --max-time 20 -H "Authorization: Bearer $token" \
        -d '{"model":"slow","stream":true,"input":"poison"}' "http://127.0.0.1:$port/v1/responses" | grep request_quarantined
    [ "$(request)" = 200 ]
    pkill -f "slow_upstream.py 9000 $work/$name.begun"
    configure ''
    ctl restart codex-proxy.service
    with_cap
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
        check "reload keeps the process" reload
        check "a killed proxy is back, and how it ended is recorded" killed
        check "a proxy that hangs is replaced" stopped_dead
        check "Codex edits a file through the installed proxy, and its settings come back" codex_session
        check "a turn of Codex outlives a kill in mid-stream" killed_in_mid_turn
        check "no connection is refused in $kills kills under load" killed_under_load
        check "a wrong configuration is told and costs no start" config_error
        check "a token that cannot be read is told" token_unreadable
        check "state that cannot be written does not keep requests from being served" state_unwritable
        check "two users have a port and a token each" two_users
        check "a request that kills twice is refused, others are served" poison
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
