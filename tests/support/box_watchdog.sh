# shellcheck shell=bash
# Checks of tests/watchdog.sh. Sourced by it, beside box.sh.

service=codex-proxy.service
tool() { user python3 /opt/watchdog_box.py "$@"; }
now() { user date +%s%6N; }
# inject COMMAND: prints the moment before it, and what the command says elsewhere; how it ends is of no interest.
inject() { user sh -c "date +%s%6N; { $1; } >&2 || true"; }
watchdog() { # watchdog PROPERTY
    user busctl --user --auto-start=no --timeout=5 get-property org.codexproxy.Watchdog1 /org/codexproxy/Watchdog1 \
        org.codexproxy.Watchdog1 "$1"
}
no_incident() { [ "$(watchdog OpenIncidents)" = 'u 0' ]; }
quiet() { soon 90 no_incident; }
dropin() { # dropin NAME LINE…: for the service
    user mkdir -p "/home/alice/.config/systemd/user/$service.d"
    # shellcheck disable=SC2016  # expanded in the box
    user sh -c 'name=$1; shift; printf "%s\n" "$@" >~/.config/systemd/user/codex-proxy.service.d/$name.conf' sh "$@"
    ctl daemon-reload
}
no_dropin() { user rm -f "/home/alice/.config/systemd/user/$service.d/$1.conf"; ctl daemon-reload; }
begin() { # a box with the package, whose proxy and watchdog run
    "$box" up "$name" --suite "$suite"
    "$box" install "$name" "$deb"
    "$box" copy "$name" "$json" /opt/
    "$box" copy "$name" tests/support/watchdog_box.py /opt/watchdog_box.py
    ctl enable --now codex-proxy
    soon 10 is codex-watchdog.service ActiveState active
    soon 10 watchdog RestartsInWindow
    answers
}
# A limit of starts that is not met; the package's own is tried elsewhere.
limit_off() { dropin limit '[Unit]' StartLimitIntervalSec=0; }

# row INJECTION SINCE FAULTS END COMMANDS VERIFIED [SECONDS]: waits for the end of the incident that the injection led to,
# writes its row of the table, and compares. FAULTS: the one it is about, and what else was named. COMMANDS: those sent,
# in order.
row() {
    local said
    said=$(tool incident "$2" "${3%% *}" "${7:-60}")
    echo "$said"
    # shellcheck disable=SC2016  # jq's own
    user jq -r --arg what "$1" --arg how "$6" '[$what,
        (.fault // "none") + (if .others == [] then "" else " (also " + (.others | join(" ")) + ")" end),
        (.detected_ms // "-" | tostring),
        ([.decided[]? | .[0] + (if .[1] > 1 then " (" + (.[1] | tostring) + " times)" else "" end)] | join(", "))
            + ([.outcomes[]? | select(. != "done")] | if . == [] then "" else " " + tostring end),
        (.ended // "open") + " after " + (.after_s // "-" | tostring) + " s",
        ((.proven // [] | unique) + [$how] | join(", "))] | join(" | ")' <<<"$said" >>"$work/$name.rows"
    # shellcheck disable=SC2016
    user jq -e --arg fault "$3" --arg ended "$4" --arg sent "$5" \
        '([.fault] + .others | join(" ")) == $fault and .ended == $ended and (.commanded | join(" ")) == $sent' <<<"$said" >/dev/null ||
        { echo "expected: $3, $4, sent: $5"; return 1; }
}
evidence() { # evidence SINCE FAULT TEXT
    tool incident "$1" "$2" 0 | grep -F -e "$3" || { echo "not the evidence: $3"; return 1; }
}
serves() { is $service ActiveState active; answers; is codex-proxy-capped.service ActiveState inactive; }

# --- A1 ---
dies() {
    local before restarts since
    limit_off
    ctl restart $service
    quiet
    before=$(main_pid) restarts=$(ctl show -P NRestarts $service)
    since=$(inject "kill -9 $before")
    row 'kill -9' "$since" A1 healed '' 'another pid, NRestarts +1, /health'
    evidence "$since" A1 'ended by signal 9'
    [ "$(main_pid)" != "$before" ]
    is $service NRestarts $((restarts + 1))
    serves
}
exits() {
    local since
    dropin exit '[Service]' ExecStart= "ExecStart=/bin/sh -c 'if [ -e %h/exit-once ]; then rm %h/exit-once; \
date +%%s%%6N >%h/exited; exit 1; fi; exec /usr/bin/codex-proxy'"
    quiet
    user touch /home/alice/exit-once
    ctl restart $service || true # 252 calls that a failure, 257 does not
    since=$(user cat /home/alice/exited)
    row 'exit 1, once' "$since" A1 healed '' 'NRestarts 1, /health'
    evidence "$since" A1 'ended by itself with exit status 1'
    is $service NRestarts 1
    serves
    no_dropin exit
    ctl restart $service
}
# The crash loop, in the box.
# shellcheck disable=SC2016
crash_loop='until [ "$(systemctl --user show -P ActiveState codex-proxy.service)" = failed ]; do
    pid=$(systemctl --user show -P MainPID codex-proxy.service)
    [ "$pid" = 0 ] || kill -9 "$pid" 2>/dev/null || true; sleep 0.1; done'
fallback() {
    soon 10 is codex-proxy-capped.service ActiveState active
    soon 5 answers
    [ "$(request)" = 503 ]
    user grep -q 'codex-proxyctl recover' /tmp/answer
}
alerts() { tool incident "$1" "$2" 0 | user jq '.alerts | length'; }
loops() { # with the package's own limit: nothing is started, a person does
    local since
    no_dropin limit
    quiet
    ctl reset-failed $service
    since=$(inject "$crash_loop")
    is $service ActiveState failed
    fallback
    soon 5 test "$(alerts "$since" A1)" = 1
    is $service ActiveState failed
    [ "$(tool incident "$since" A1 0 | user jq -c .commanded)" = '[]' ]
    user codex-proxyctl recover
    # What ends it is not this watchdog's doing: of that it knows no more than that a person was told.
    row 'crash loop to the limit, then recover' "$since" A1 alerted '' 'one alert, the fallback answers, nothing sent, /health'
    serves
}
loops_for_a_while() { # with a limit within twenty seconds: it comes back by itself
    local since sent
    dropin limit '[Unit]' StartLimitIntervalSec=20
    ctl reset-failed $service
    quiet
    since=$(inject "$crash_loop")
    fallback
    row 'crash loop to the limit (of 20 s)' "$since" A1 healed start_proxy \
        'one alert, the fallback answers until then, no start refused, /health' 90
    [ "$(alerts "$since" A1)" = 1 ]
    serves
    # The one refusal is the one that ended the loop.
    sent=$(root journalctl -b -o cat --since="@${since%??????}" USER_UNIT=$service | grep -c 'Start request repeated too quickly')
    [ "$sent" = 1 ] || { echo "$sent starts refused"; return 1; }
    limit_off
}

# --- A2 ---
taken() { # taken COMMAND: the port is COMMAND's, and the socket cannot have it; prints the moment
    local left
    ctl stop codex-proxy.socket $service codex-proxy-capped.service
    # Of a check that failed.
    left=$(holder)
    [ -z "$left" ] || root kill -9 "$left"
    ctl reset-failed codex-proxy.socket $service
    quiet
    "$@" >&2
    soon 10 listening >&2
    inject 'systemctl --user start codex-proxy.socket'
}
holder() { root ss -Htlnp "sport = :$port" | sed -n 's/.*pid=\([0-9]*\),.*/\1/p'; }
freed() {
    ctl reset-failed codex-proxy.socket
    ctl start $service
    serves
}
stranger() {
    user sh -c "setsid python3 -c \"import socket, time
s = socket.create_server(('127.0.0.1', $port)); time.sleep(600)\" </dev/null >/dev/null 2>&1 &"
}
other_user() {
    root systemd-run --quiet --unit=holder --property=Type=exec python3 -c "
import socket, time
s = socket.create_server(('127.0.0.1', $port)); time.sleep(600)"
}
leftover() { user sh -c "setsid /usr/bin/codex-proxy --listen 127.0.0.1:$port </dev/null >/dev/null 2>&1 &"; }
watched_leftover() {
    user sh -c "sleep 600 | setsid script -qfc 'exec /usr/bin/codex-proxy --listen 127.0.0.1:$port' /dev/null >/dev/null 2>&1 &"
}
replaced_leftover() {
    leftover
    soon 10 listening
    "$box" install "$name" "$work/2.deb"
    root sh -c "readlink /proc/$(holder)/exe" | grep -F ' (deleted)'
}
taken_by_stranger() {
    local since pid
    since=$(taken stranger)
    is codex-proxy.socket Result resources
    pid=$(holder)
    row 'the port taken by a stranger of the same user' "$since" A2 alerted '' 'the alert names it, it lives'
    tool incident "$since" A2 0 | grep -F "held by process $pid"
    [ "$(holder)" = "$pid" ]
    root kill "$pid"
    freed
}
taken_by_other_user() {
    local since pid
    since=$(taken other_user)
    pid=$(holder)
    row 'the port taken by another user' "$since" A2 alerted '' 'the alert names the user, it lives'
    tool incident "$since" A2 0 | grep -F 'held by user 0'
    [ "$(holder)" = "$pid" ]
    root systemctl stop holder
    freed
}
taken_by_leftover() { # taken_by_leftover WHICH WORDS
    local since pid before
    since=$(taken "$1")
    pid=$(user pgrep -x codex-proxy | head -n 1)
    before=$(ctl show -P ActiveState $service)
    echo "leftover $pid, the service is $before"
    row "$2" "$since" A2 healed 'kill_stale_processes start_proxy' 'it is gone, the socket is held, /health'
    not root test -e "/proc/$pid"
    serves
}
taken_by_watched_leftover() {
    local since pid
    since=$(taken watched_leftover)
    pid=$(holder)
    row 'the port taken by a proxy with a terminal' "$since" A2 alerted '' 'the alert names it, it lives'
    tool incident "$since" A2 0 | grep -F 'has a terminal'
    [ "$(holder)" = "$pid" ]
    root kill "$pid"
    freed
}

# --- A4 and A5 ---
hangs() {
    local since before
    ctl restart $service
    quiet
    before=$(main_pid)
    since=$(inject "kill -STOP $before")
    row 'SIGSTOP' "$since" A4 healed '' 'another pid, NRestarts 1, /health'
    evidence "$since" A4 'because it stood still'
    [ "$(main_pid)" != "$before" ]
    is $service NRestarts 1
    serves
}
misbehave() { # misbehave HOW: by a request; prints the moment
    inject "curl -s --max-time 45 -o /tmp/answer -H 'Authorization: Bearer $(user codex-proxyctl token --port $port)' \
        -H 'x-test-fault: $1' -d '{\"model\":\"demo\",\"input\":\"$1\"}' http://127.0.0.1:$port/v1/responses"
}
wedges() {
    local since before
    misbehaving
    quiet
    before=$(main_pid)
    since=$(misbehave wedge)
    row 'all threads hang' "$since" A4 healed '' 'another pid, NRestarts 1, /health'
    evidence "$since" A4 'because it stood still'
    [ "$(main_pid)" != "$before" ]
    is $service NRestarts 1
    serves
    behaving
}
panics() { # of one exchange
    local since before
    misbehaving
    quiet
    before=$(main_pid)
    since=$(misbehave panic)
    row 'panic in one exchange' "$since" A5 healed '' 'the same pid, NRestarts 0, /health' 400
    evidence "$since" A5 'signal panic'
    [ "$(main_pid)" = "$before" ]
    is $service NRestarts 0
    serves
    behaving
}
panics_at_start() {
    local since
    misbehaving
    quiet
    user sh -c 'echo "Environment=CODEX_PROXY_TEST_FAULT=panic-start" >>~/.config/systemd/user/codex-proxy.service.d/fault.conf'
    ctl daemon-reload
    ctl reset-failed $service
    since=$(inject "systemctl --user restart $service")
    soon 15 is $service ActiveState failed
    fallback
    row 'panic at every start' "$since" 'A5 A1' alerted '' 'the limit is reached, the fallback answers, nothing sent'
    evidence "$since" A5 'panicked, exit status 101'
    [ "$(tool incident "$since" A1 0 | user jq -c .commanded)" = '[]' ]
    user rm -r "/home/alice/.config/systemd/user/$service.d"
    ctl daemon-reload
    user codex-proxyctl recover
    serves
    quiet
}

# --- stopped by a person ---
starts_since() { # starts_since MOMENT
    root journalctl -b -q -o cat --since="@${1%??????}.${1: -6}" USER_UNIT=$service MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5 | wc -l
}
# stays_stopped COMMAND…: what it stopped is still stopped a minute later, and nobody was told. Here waiting is the subject.
stays_stopped() {
    local since before
    "$@"
    soon 5 is $service ActiveState inactive
    since=$(now)
    before=$(ctl show -P ExecMainStartTimestampMonotonic $service)
    sleep 60
    is $service ActiveState inactive
    is codex-proxy-capped.service ActiveState inactive
    is $service ExecMainStartTimestampMonotonic "$before"
    [ "$(starts_since "$since")" = 0 ]
    tool acted "$since"
    [ "$(watchdog OpenIncidents)" = 'u 0' ]
    ctl start $service
    soon 5 answers
}
stop_both() { ctl stop codex-proxy.socket $service; }
stop_service() { ctl stop $service; listening; }
stop_in_pause() { # of the restart, which is made long enough to be met
    local since
    dropin pause '[Service]' RestartSec=5s
    ctl restart $service
    quiet
    since=$(now)
    die
    soon 4 is $service SubState auto-restart
    ctl stop codex-proxy.socket $service
    no_dropin pause
    quiet
    tool incident "$since" A1 0 | grep -F '"ended": "held"'
    tool acted "$since"
}

# --- many kills ---
many_kills() { limit_off; tool kills "$kills" | tee "$work/$name.figures"; tell "$(cat "$work/$name.figures")"; }
watchdog_killed() {
    limit_off
    # Or the second that its own restart waits would make up most of this test.
    user sh -c 'mkdir -p ~/.config/systemd/user/codex-watchdog.service.d &&
        printf "[Service]\nRestartSec=100ms\n" >~/.config/systemd/user/codex-watchdog.service.d/quick.conf'
    ctl daemon-reload
    local status=0
    tool watchdog-kills "$wkills" "$((wkills / 20 + 1))" "$((wkills / 50 + 1))" "$RANDOM" >"$work/$name.wounds" 2>&1 || status=$?
    cat "$work/$name.wounds"
    tell "$(grep -E '^(seed|[0-9]+ kills|port taken .*: watchdog)' "$work/$name.wounds")"
    return $status
}
around_the_limit() { # around_the_limit SECONDS
    local status=0
    tool mix "$1" "$RANDOM" >"$work/$name.mix" || status=$?
    cat "$work/$name.mix"
    tell "$(cat "$work/$name.mix")"
    return $status
}
around_a_short_limit() {
    dropin limit '[Unit]' StartLimitIntervalSec=20
    ctl reset-failed $service codex-proxy.socket
    ctl start $service
    around_the_limit "$1"
    # After two starts of its own within that time the watchdog rests for a minute; then comes the next.
    soon 180 is $service ActiveState active
    limit_off
    quiet
}

# --- what it sees with ---
trouble() { # its own word on the bus; without one, what it told the manager
    watchdog Trouble 2>/dev/null || { echo -n 'no bus; status: '; ctl show -P StatusText codex-watchdog.service; }
}
well() { [ "$(trouble | tail -n 1)" = 's ""' ]; }
seen_trouble() { # what it says within some seconds; nothing, if it stays well
    local end=$((SECONDS + 6))
    while [ $SECONDS -lt $end ] && well; do sleep 0.2; done
    trouble | tail -n 1
}
# without WHAT BREAK MEND: whether a death is recorded at that moment, what it says then, whether a death later on is
# recorded, and when it is well again.
without() {
    local first said took begun status=0
    quiet
    soon 30 is $service ActiveState active
    user rm -f /tmp/now /tmp/now.ready
    tool recorded 90 /tmp/now >"$work/$name.first" &
    soon 10 user test -e /tmp/now.ready
    "$2"
    user touch /tmp/now
    wait $! || status=$?
    first=$(tail -n 1 "$work/$name.first")
    said=$(seen_trouble)
    took=$(tool recorded 90) || status=$?
    "$3"
    begun=$EPOCHREALTIME
    soon 90 well || status=1
    printf '%s | %s | %s | %s | %s s\n' "$1" "$first" "$said" "${took##*$'\n'}" \
        "$(((${EPOCHREALTIME/./} - ${begun/./}) / 1000000))" >>"$work/$name.blind"
    [ $status = 0 ] && [ "$first" != never ] && [ "$took" != never ]
}
hide_journal() { root chmod 700 /var/log/journal; user pkill -x journalctl; }
show_journal() { root chmod 2755 /var/log/journal; }
end_reader() { user pkill -x journalctl; }
end_reader_often() { for _ in 1 2 3 4 5 6; do soon 5 user pkill -x journalctl; done; }
end_bus() { ctl kill --kill-whom=main --signal=KILL dbus.service; }
stop_bus() { ctl stop dbus.socket dbus.service; }
start_bus() { ctl start dbus.socket; }
end_manager() { ctl daemon-reexec; }
end_journald() { root systemctl restart systemd-journald; }
end_entries() { root journalctl -q --rotate; root journalctl -q --vacuum-files=1 --vacuum-size=1; }
nothing() { :; }

# --- lies ---
starting=7d4958e842da4a758f6c1cdc7b36dcc5 failed=d9b373ed55a64feb8242e02dbe79a49c
told() { # told COUNT MATCH…: so many entries
    local count
    count=$(root journalctl -b -q -o cat "${@:2}" | wc -l)
    [ "$count" = "$1" ] || { echo "$count of $1: ${*:2}"; return 1; }
}
lies() { # everything that anybody may write under our name, from the user and from root
    local run panic who
    run=$(ctl show -P InvocationID $service)
    panic=$(sed -n '/name: "panic"/{n;s/.*"\([0-9a-f]*\)".*/\1/p}' src/model/signal.rs)
    echo "the signal's id is '$panic'"
    [ -n "$panic" ]
    user sh -c 'cp /usr/bin/systemd-cat ~/systemd && cp /usr/bin/logger ~/codex-proxy'
    user sh -c "echo \"thread 'main' panicked at src/main.rs:1\" | systemd-cat -t codex-proxy"
    user logger -t codex-proxy "Start request repeated too quickly."
    user sh -c 'echo "codex-proxy.service: Start request repeated too quickly." | ~/systemd -t systemd'
    user sh -c 'echo "codex-proxy.service: Main process exited, code=killed, status=9/KILL" | ~/codex-proxy -t systemd'
    for who in user root; do
        for _ in 1 2 3 4 5 6 7 8; do
            $who python3 /opt/watchdog_box.py forge MESSAGE='Starting codex-proxy.service - Codex proxy...' "MESSAGE_ID=$starting" \
                USER_UNIT=$service "USER_INVOCATION_ID=$(tr -d - </proc/sys/kernel/random/uuid)" SYSLOG_IDENTIFIER=systemd \
                _UID=1000 _SYSTEMD_USER_UNIT=init.scope _EXE=/usr/lib/systemd/systemd "_PID=$(user pgrep -x systemd | head -n 1)"
        done
        $who python3 /opt/watchdog_box.py forge MESSAGE='codex-proxy.service: Main process exited' USER_UNIT=$service \
            MESSAGE_ID=98e322203f7a4ed290d09fe03c09fe15 "USER_INVOCATION_ID=$run" COMMAND=ExecStart EXIT_CODE=killed EXIT_STATUS=9
        $who python3 /opt/watchdog_box.py forge MESSAGE="codex-proxy.service: Failed with result 'signal'." "MESSAGE_ID=$failed" \
            USER_UNIT=$service "USER_INVOCATION_ID=$run" UNIT_RESULT=signal SYSLOG_IDENTIFIER=systemd
        $who python3 /opt/watchdog_box.py forge MESSAGE='a panic' "MESSAGE_ID=$panic" CODEX_SIGNAL=panic \
            "CODEX_EVENT_ID=evt_forged_$who" SYSLOG_IDENTIFIER=codex-proxy _SYSTEMD_USER_UNIT=$service
        printf 'MESSAGE_ID=%s\nMESSAGE=a panic\nCODEX_SIGNAL=panic\nCODEX_EVENT_ID=evt_logger\nSYSLOG_IDENTIFIER=codex-proxy\n' \
            "$panic" | $who logger --journald
    done
    # The control: it is all there to be believed, as soon as the journal has taken it in.
    soon 20 told 16 "MESSAGE_ID=$starting" SYSLOG_IDENTIFIER=systemd _COMM=python3
    soon 20 told 4 CODEX_SIGNAL=panic
    root journalctl -b -q -o cat -t systemd _UID=1000 | grep -F 'Main process exited, code=killed, status=9/KILL'
    for _ in 1 2 3 4 5; do
        user busctl --user emit /org/codexproxy/Proxy1 org.codexproxy.Proxy1 FailureSignal 'ssa{sv}' "evt_$RANDOM" panic 0
    done
}
unmoved() { # unmoved COMMAND…: nothing comes of it
    local before since window
    quiet
    before=$(main_pid) window=$(watchdog RestartsInWindow)
    since=$(now)
    "$@"
    sleep 3 # a reader of the journal is up to half a second late, and nothing is to be seen of what it leaves alone
    [ "$(main_pid)" = "$before" ]
    [ "$(watchdog RestartsInWindow)" = "$window" ] || { echo "was $window"; watchdog RestartsInWindow; return 1; }
    tool acted "$since" | tee "$work/$name.acted"
    tell "incidents opened by it: $(grep -c opened "$work/$name.acted" || true)"
}
borrowed_name() { # the proxy's name on the bus, while the proxy is stopped
    ctl stop codex-proxy.socket $service
    soon 5 is $service ActiveState inactive
    unmoved tool own org.codexproxy.Proxy1 | tee "$work/$name.owner"
    ctl start $service
    soon 5 answers
    grep 'was owned by the forger' "$work/$name.owner"
}

costs() {
    quiet
    tool idle "$idle" | tee "$work/$name.idle"
    tell "$(cat "$work/$name.idle")"
}
