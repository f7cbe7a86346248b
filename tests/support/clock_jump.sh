# shellcheck shell=bash
# What tests/vm.sh does in a second virtual machine: somebody sets the clock while the watchdog is at work. Root's shell
# with `asuser`, given by tests/systemd-box. One line a test, `ok` or `FAILED`, and below it what was measured.
set +e
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
unit=codex-proxy.service
store=/home/alice/.local/state/codex-proxy
dropin=/home/alice/.config/systemd/user/$unit.d
hours=$((3 * 3600))

ctl() { asuser systemctl --user "$@"; }
is() { # is UNIT PROPERTY VALUE
    local value
    value=$(ctl show -P "$2" "$1")
    [ "$value" = "$3" ] || { echo "$1: $2 is '$value', not '$3'"; return 1; }
}
uptime_ms() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
soon() { # soon SECONDS COMMAND…: until it succeeds; by a clock that nobody sets
    local end=$(($(uptime_ms) + $1 * 1000))
    shift
    until "$@" >/tmp/soon 2>&1; do
        if [ "$(uptime_ms)" -ge $end ]; then cat /tmp/soon; echo "not in time: $*"; return 1; fi
        sleep 0.2
    done
}
check() { # check NAME COMMAND…: a subshell of its own with -e, so that the first thing in it that fails, fails it
    local what=$1 status
    shift
    (set -e; "$@") >/tmp/check 2>&1
    status=$?
    echo "$([ $status = 0 ] && echo 'ok    ' || echo FAILED)  $suite: $what"
    sed 's/^/    /' /tmp/check
    [ $status = 0 ] || journalctl -b -n 60 --no-pager -o short-monotonic _UID=1000 | sed 's/^/    /'
}
watchdog() { # watchdog VERB ARGUMENT…
    asuser busctl --user "$1" org.codexproxy.Watchdog1 /org/codexproxy/Watchdog1 org.codexproxy.Watchdog1 "${@:2}"
}
property() { [ "$(watchdog get-property "$1")" = "$2" ] || { echo "$1: $(watchdog get-property "$1"), not $2"; return 1; }; }
# told INCIDENT FILTER: its facts, each with its moment, through a filter of jq's.
told() { jq -c --argjson id "$1" ".entry.told // empty | select(.incident == \$id) | $2" $store/incidents.jsonl; }
last_incident() { jq -s 'map(.entry.told.incident // 0) | max // 0' $store/incidents.jsonl; }
ended() { # ended INCIDENT HOW
    told "$1" .fact.closed.end | grep -Fx "\"$2\"" || { told "$1" .fact; return 1; }
}
count() { told "$1" ".fact.$2 // empty" | wc -l; }
# The starts of the last SECONDS by the manager's journal, on the monotonic clock.
starts() {
    local now
    now=$(($(uptime_ms) * 1000))
    journalctl -b -q -o json _UID=1000 _SYSTEMD_USER_UNIT=init.scope USER_UNIT=$unit MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5 |
        jq -r .__MONOTONIC_TIMESTAMP | awk -v from=$((now - $1 * 1000000)) '$1 >= from { n++ } END { print n + 0 }'
}
jump() { date -s "@$(($(date +%s) + $1))" >/dev/null; echo "the clock jumps by $1 s"; }
die() { ctl kill --kill-whom=main --signal=KILL $unit || true; }
limit() { # limit SECONDS: the interval within which starts are counted
    asuser mkdir -p $dropin
    printf '[Unit]\nStartLimitIntervalSec=%s\n' "$1" >$dropin/limit.conf
    ctl daemon-reload
    ctl reset-failed $unit
}
unharmed() {
    is codex-watchdog.service MainPID "$pid"
    property Trouble 's ""'
}

enable() {
    ctl enable --now codex-proxy
    soon 60 is codex-watchdog.service ActiveState active
    soon 60 property OpenIncidents 'u 0'
}
# While the manager refuses every start and the watchdog waits for the interval to be over.
while_it_waits() { # while_it_waits SECONDS
    local id begun
    limit 40
    begun=$(uptime_ms)
    until [ "$(ctl show -P ActiveState $unit)" = failed ]; do
        die
        sleep 0.2
    done
    soon 30 is codex-proxy-capped.service ActiveState active
    id=$(last_incident)
    soon 20 told "$id" 'select(.fact.restrained.guard == "restart_ledger")'
    jump "$1"
    soon 120 ended "$id" healed
    [ "$(count "$id" commanded)" = 1 ]
    [ "$(count "$id" alerted)" = 1 ]
    [ "$(told "$id" '.fact.finished.outcome // empty')" = '"done"' ]
    echo "started $(($(told "$id" 'select(.fact.commanded) | .at.mono_us') / 1000 - begun)) ms after the first death"
    is $unit ActiveState active
    [ "$(last_incident)" = "$id" ]
    unharmed
}
while_it_is_paused() { # while_it_is_paused SECONDS
    local id
    limit 600
    watchdog call Pause ts 120 'the clock is set'
    property State 's "paused"'
    die
    soon 30 property OpenIncidents 'u 1'
    id=$(last_incident)
    soon 30 told "$id" 'select(.fact.restrained.guard == "pause")'
    jump "$1"
    if [ "$1" -lt 0 ]; then
        # Its end is a time of day, and that is further away now.
        property State 's "paused"'
        watchdog call Resume
    fi
    soon 60 ended "$id" healed
    [ "$(count "$id" commanded)" = 0 ]
    [ "$(count "$id" alerted)" = 0 ]
    [ "$(last_incident)" = "$id" ]
    unharmed
}
ledger() { # of a watchdog that begins after the jump, and one that was there
    local counted
    limit 600
    for _ in 1 2 3; do ctl restart $unit; done
    counted=$(starts 600)
    echo "$counted starts by the manager's journal"
    soon 10 property RestartsInWindow "u $counted"
    jump "$1"
    property RestartsInWindow "u $counted"
    ctl kill --kill-whom=main --signal=KILL codex-watchdog.service
    soon 30 property State 's "watching"'
    soon 10 property RestartsInWindow "u $counted"
}

check "enabled" enable
pid=$(ctl show -P MainPID codex-watchdog.service)
# First, while the journal's own times still rise without a break.
check "the clock goes forward and the watchdog begins anew: its record of starts is right" ledger $hours
pid=$(ctl show -P MainPID codex-watchdog.service)
check "the clock goes forward while a start is held back" while_it_waits $hours
check "the clock goes back while a start is held back" while_it_waits -$hours
check "the clock goes forward during a pause" while_it_is_paused $hours
check "the clock goes back during a pause" while_it_is_paused -$hours
check "the clock goes back and the watchdog begins anew: its record of starts is right" ledger -$hours
