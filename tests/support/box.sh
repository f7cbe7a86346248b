# shellcheck shell=bash
# What the checks of tests/units.sh, tests/watchdog.sh and tests/protocols.sh are made of. Sourced by them, which set $box,
# $work, $kept, $port and, for `misbehaving`, $faulty (what tests/fault-build.sh made); $suite and $name are those of the
# box at hand.

# check NAME COMMAND…: one test. What it printed is shown when it fails, and what the journal says; what it told (see
# there) always.
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
    if [ -e "$work/$name.told" ]; then sed 's/^/        /' "$work/$name.told"; rm "$work/$name.told"; fi
    if [ $status = 0 ]; then return; fi
    sed 's/^/    /' "$work/$name.check"
    root journalctl -b -n 40 --no-pager -o short-monotonic _UID=1000 2>&1 | sed 's/^/    /' || true
}
tell() { printf '%s\n' "$*" >>"$work/$name.told"; } # information for people
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
health() { user curl -sS --fail --max-time 15 "http://127.0.0.1:$port/health"; }
state_is() { health | grep -F "\"state\":\"$1\""; }
request() { # request [MODEL [INPUT [STORE]]]: prints the status; the body goes to a file in the box. STORE: not, as Codex asks
    local token
    token=$(user codex-proxyctl token --port $port)
    user curl -sS --max-time 45 -o /tmp/answer -w '%{http_code}\n' -H "Authorization: Bearer $token" \
        -H 'Content-Type: application/json' -d "{\"model\":\"${1:-demo}\",\"input\":\"${2:-hello}\",\"store\":${3:-false}}" \
        "http://127.0.0.1:$port/v1/responses"
}

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
upstream=$(printf '%s\n' '[providers.slow]' 'base_url = "http://127.0.0.1:9000/v1"' 'dialect = "openai"' 'accounts = []' \
    '[models.slow]' 'routes = ["slow/m"]')
slow_upstream() { # slow_upstream [OPTION…]: the host of $upstream, until the check ends
    local host
    rm -f "$work/$name.begun"
    "$box" hostexec "$name" python3 tests/support/slow_upstream.py 9000 "$work/$name.begun" "$@" &
    host=$!
    # shellcheck disable=SC2064  # the process as it is now
    trap "kill $host" EXIT
    soon 5 root sh -c "ss -Htln 'sport = :9000' | grep -q ."
}
no_cap() { # the cap would end the tests below; the package's own is tried elsewhere
    user mkdir -p /home/alice/.config/systemd/user/codex-proxy.service.d
    user sh -c 'printf "[Unit]\nStartLimitIntervalSec=0\n" >~/.config/systemd/user/codex-proxy.service.d/cap.conf'
    ctl daemon-reload
}
with_cap() { user rm -r /home/alice/.config/systemd/user/codex-proxy.service.d; ctl daemon-reload; ctl reset-failed codex-proxy.service; }
misbehaving() { # the unit runs that build, with the package's own limit of starts
    "$box" copy "$name" "$faulty" /opt/codex-proxy
    user sh -c 'mkdir -p ~/.config/systemd/user/codex-proxy.service.d &&
        printf "[Service]\nExecStart=\nExecStart=/opt/codex-proxy\n" >~/.config/systemd/user/codex-proxy.service.d/fault.conf'
    ctl daemon-reload
    ctl reset-failed codex-proxy.service
    ctl restart codex-proxy.service
}
behaving() {
    user rm -r /home/alice/.config/systemd/user/codex-proxy.service.d
    ctl daemon-reload
    configure ''
    ctl restart codex-proxy.service
    root rm /opt/codex-proxy
}
