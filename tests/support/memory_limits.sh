# shellcheck shell=bash
# What tests/vm.sh does in a virtual machine: root's shell with `asuser`, given by tests/systemd-box. One line a test,
# `ok` or `FAILED`, and below it what was measured.
set +e
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
port=8459 # codex-proxy.socket
unit=codex-proxy.service
mib=$((1024 * 1024))

ctl() { asuser systemctl --user "$@"; }
group() { echo "/sys/fs/cgroup$(ctl show -P ControlGroup $unit)"; }
soon() { # soon SECONDS COMMAND…: until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ $SECONDS -ge $end ]; then echo "not in time: $*"; return 1; fi
        sleep 0.2
    done
}
check() { # check NAME COMMAND…: a subshell of its own with -e, so that the first thing in it that fails, fails it
    local what=$1 begun=$SECONDS status
    shift
    (set -e; "$@") >/tmp/check 2>&1
    status=$?
    echo "$([ $status = 0 ] && echo 'ok    ' || echo FAILED)  $suite: $what ($((SECONDS - begun)) s)"
    sed 's/^/    /' /tmp/check
    [ $status = 0 ] || journalctl -b -n 40 --no-pager -o short-monotonic _UID=1000 | sed 's/^/    /'
}
ask() { # ask CURL-ARGUMENT…: prints the status
    asuser curl -sS --max-time 60 -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $token" "$@" \
        -d '{"model":"demo","input":"hello"}' "http://127.0.0.1:$port/v1/responses"
}

enable() {
    ctl enable --now codex-proxy
    local group
    group=$(group)
    [ "$(cat "$group/memory.high")" = $((768 * mib)) ]
    [ "$(cat "$group/memory.max")" = $((768 * mib)) ]
    [ "$(cat "$group/memory.swap.max")" = 0 ]
}
big_bodies() {
    local group
    group=$(group)
    asuser env TOKEN="$token" python3 /opt/big_bodies.py $port
    echo "memory.peak: $(($(cat "$group/memory.peak") / mib)) MiB; memory.events: $(paste -sd ' ' "$group/memory.events")"
    # Neither slowed down nor at the limit. The peak counts what was read from files, too.
    grep -qx 'high 0' "$group/memory.events"
    grep -qx 'max 0' "$group/memory.events"
    [ "$(cat "$group/memory.peak")" -lt "$(cat "$group/memory.high")" ]
    [ "$(ctl show -P NRestarts $unit)" = 0 ]
}
restarted() { [ "$(ctl show -P NRestarts $unit)" -gt 0 ]; }
told() { # how the run before ended, by the journal of the one that serves
    journalctl -b -o json "_PID=$(ctl show -P MainPID $unit)" |
        jq -r 'select(.CODEX_RESULT) | "\(.CODEX_RESULT) \(.CODEX_EXIT_CODE) \(.CODEX_EXIT_STATUS)"' | grep .
}
leak() {
    local begun dropin=/home/alice/.config/systemd/user/$unit.d
    asuser mkdir -p $dropin
    printf '[Service]\nExecStart=\nExecStart=/opt/codex-proxy\n' >$dropin/fault.conf
    ctl daemon-reload
    ctl restart $unit
    begun=$SECONDS
    [ "$(ask -H 'x-test-fault: leak')" = 200 ]
    if ! soon "180" restarted; then
        head -n 99 "$(group)"/memory.{current,events,pressure}
        return 1
    fi
    echo "ended after $((SECONDS - begun)) s"
    [ "$(ask)" = 200 ]
    echo "served again after $((SECONDS - begun)) s"
    soon 20 told >/tmp/told
    echo "the journal tells how the run ended: $(cat /tmp/told)"
    grep -qE '^(oom-kill|watchdog) ' /tmp/told
}

check "one command enables and starts, with limits of memory" enable
token=$(asuser codex-proxyctl token --port $port)
check "the largest body, and many at once, stay within MemoryHigh" big_bodies
check "a leak ends the run, and the next one serves and tells of it" leak
