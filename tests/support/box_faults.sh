# shellcheck shell=bash
# Checks of tests/units.sh --full: what is to be seen of the proxy from outside, and what it withstands. Sourced by it.

# --- the bus ---
face=(org.codexproxy.Proxy1 /org/codexproxy/Proxy1 org.codexproxy.Proxy1)
bus() { # bus VERB [ARG…]: a command of the transcript, and what came of it
    local verb=$1
    shift
    echo "\$ busctl --user $verb ${face[*]} $*"
    user busctl --user --no-pager "$verb" "${face[@]}" "$@" 2>&1
}
members() { # NAME KIND SIGNATURE of each member in the contract that is installed
    root cat /usr/share/dbus-1/interfaces/org.codexproxy.Proxy1.xml | python3 -c '
import sys, xml.etree.ElementTree as tree
for member in tree.parse(sys.stdin).find("interface"):
    signature = member.get("type") or "".join(a.get("type") for a in member if a.get("direction") != "out")
    print(member.get("name"), member.tag, signature or "-")' | sort
}
bus_transcript() {
    local event said=$work/$name.monitor
    configure '[proxy]
retry_deadline_s = 0
[providers.away]
base_url = "http://127.0.0.1:9/v1"
accounts = []
[models.away]
routes = ["away/m"]'
    # shellcheck disable=SC2016  # expanded in the box
    user sh -c 'echo $$ >/tmp/monitor; exec busctl --user --json=short monitor org.codexproxy.Proxy1' \
        >"$said" &
    trap 'user sh -c "kill \$(cat /tmp/monitor)"' EXIT
    seen() { user busctl --user call "${face[@]}" Ping && grep -q Ping "$said"; }
    soon 5 seen # before that the monitor may not have begun
    {
        bus introspect
        for property in State Listen Version; do bus get-property $property; done
        bus call Ping
        bus call Reload
        not bus call SetRouteEnabled sb nowhere/m false
        not bus call CancelRequest u 7
        echo '$ curl … /v1/responses   (the model "away", whose provider takes no connection)'
        request away
        soon 5 grep -q FailureSignal "$said"
        soon 5 grep -q PropertiesChanged "$said"
        echo '$ busctl --user --json=short monitor org.codexproxy.Proxy1   (its signals and errors meanwhile)'
        user jq -c 'select(.type == "signal" or .type == "error")' <"$said"
        event=$(user jq -r 'select(.member == "FailureSignal") | .payload.data[0]' <"$said" | head -n 1)
        echo "\$ journalctl CODEX_EVENT_ID=$event"
        soon 5 root journalctl -b -q -o verbose --output-fields=MESSAGE,MESSAGE_ID,CODEX_EVENT_ID,CODEX_SIGNAL,CODEX_ROUTE \
            "CODEX_EVENT_ID=$event" CODEX_SIGNAL=upstream.reset
        root journalctl -b -q -o verbose --output-fields=MESSAGE,MESSAGE_ID,CODEX_EVENT_ID,CODEX_SIGNAL,CODEX_ROUTE \
            "CODEX_EVENT_ID=$event"
    } | tee "$kept/$suite.bus.txt"
    diff <(members) <(sed -n 's/^\.//p' "$kept/$suite.bus.txt" | awk '{ print $1, $2, $3 }' | sort)
    for event in '^s "ready"$' '^as 1 "127.0.0.1:8459"$' '^s "[0-9.]*"$' '^t [0-9]*$' '^502$' \
        '"error_name":"org.codexproxy.Error.UnknownRoute"' '"error_name":"org.freedesktop.DBus.Error' \
        'CODEX_SIGNAL=upstream.reset'; do
        grep -e "$event" "$kept/$suite.bus.txt" >/dev/null || { echo "not in the transcript: $event"; return 1; }
    done
    configure ''
    ctl reload codex-proxy.service
    tell "the transcript is in target/units/$suite.bus.txt"
}

# --- sessions of Codex ---
upgrade_in_mid_turn() { # the answer goes on for longer than a stop waits
    configure "$upstream"
    ctl reload codex-proxy.service
    slow_upstream --seconds 20
    codex_exec slow 'go on' >"$work/$name.turn" 2>"$work/$name.turn.err" &
    local turn=$!
    soon 20 test -e "$work/$name.begun"
    upgrade "$1"
    wait $turn || { cat "$work/$name.turn.err"; return 1; }
    cat "$work/$name.turn.err"
    [ "$(cat "$work/$name.turn")" = 'begun told in full' ] || { cat "$work/$name.turn"; return 1; }
    grep -F 'Reconnecting... 1/10' "$work/$name.turn.err"
    configure ''
    ctl reload codex-proxy.service
}
tui() { tmux -S "$work/$name.tmux" -f /dev/null "$@"; }
tui_shows() { tui capture-pane -p -t it | grep -F -e "$1" || { tui capture-pane -p -t it; return 1; }; }
tui_kept() { # tui_kept WHEN: notes down the screen, for people
    { printf -- '--- %s ---\n' "$1"; tui capture-pane -p -t it | grep .; } >>"$kept/$suite.tui.txt"
}
sessions_begin() { # a turn of `codex exec` and one in the terminal program
    root rm -rf /home/alice/work
    { codex_exec demo 'show me' >"$work/$name.turn" 2>"$work/$name.turn.err" || true; touch "$work/$name.turn.over"; } &
    # Without its background server, which would outlive it.
    tui new-session -d -s it -x 120 -y 40 env TERM=screen-256color "$box" user "$name" sh -c 'mkdir -p ~/tui && cd ~/tui &&
        NO_PROXY=127.0.0.1 exec codex --no-daemon -s danger-full-access -a never -m demo \
        -c "projects.\"/home/alice/tui\".trust_level=\"trusted\""'
    soon 20 tui_shows 'for shortcuts'
    tui send-keys -t it -l 'show me'
    soon 10 tui_shows '› show me'
    tui send-keys -t it Enter
}
sessions_wait() { # what they show while the fallback holds their requests
    soon 60 grep -F 'Reconnecting... 1/10' "$work/$name.turn.err"
    soon 60 tui_shows 'codex-proxyctl recover'
    rm -f "$kept/$suite.tui.txt"
    tui_kept 'the terminal program while the fallback answers'
    not test -e "$work/$name.turn.over"
}
sessions_go_on() {
    soon 90 test -e "$work/$name.turn.over"
    cat "$work/$name.turn.err"
    grep -F 'Done: two commands ran in parallel' "$work/$name.turn"
    user grep -q 'codex-proxy works here' /home/alice/work/codex-proxy-demo.md
    soon 90 tui_shows 'Done: two commands ran in parallel'
    user grep -q 'codex-proxy works here' /home/alice/tui/codex-proxy-demo.md
    tui_kept 'the same after codex-proxyctl recover'
    { echo '--- codex exec ---'; cat "$work/$name.turn.err" "$work/$name.turn"; } >>"$kept/$suite.tui.txt"
    tui kill-server
    tell "what Codex showed is in target/units/$suite.tui.txt"
}

# --- files ---
state=/home/alice/.local/state/codex-proxy
runtime=/run/user/1000/codex-proxy
small_disk() { # small_disk DIRECTORY: puts one of 32 MiB there, until the check ends; what the watchdog keeps takes ten
    # shellcheck disable=SC2064  # the directory as it is now
    trap "root sh -c 'umount -l $1; rm -r /tmp/kept'" EXIT
    root sh -ec "mkdir /tmp/kept; cp -a $1/. /tmp/kept; mount -t tmpfs -o size=32m,uid=1000,gid=1000,mode=700 small $1
        cp -a /tmp/kept/. $1"
}
fill() { root sh -c "head -c 33M /dev/zero >$1/filler.\$\$ || true" 2>&1 | grep 'No space left'; }
degraded() { # degraded WHY: requests are served, and the rest is told
    state_is degraded
    [ "$(request)" = 200 ]
    user codex-proxyctl status >"$work/$name.status"
    cat "$work/$name.status"
    grep -F -e "$1" "$work/$name.status"
    tell "$(grep -F -e 'wrong:' "$work/$name.status")"
}
no_room() {
    no_cap
    small_disk $state
    fill $state
    # All is there, so there is nothing to keep.
    ctl restart codex-proxy.service
    state_is ready
    [ "$(request)" = 200 ]
    # What is to be kept and cannot be is answered all the same.
    [ "$(request demo hello true)" = 200 ]
    soon 10 degraded 'responses are not stored: '
    root rm $state/opaque.key
    fill $state
    ctl restart codex-proxy.service
    degraded 'opaque.key cannot be kept on disk: No space left on device'
    # A file that is open for writing would keep it from becoming so.
    ctl stop codex-proxy.service
    root mount -o remount,ro $state
    ctl start codex-proxy.service
    degraded 'opaque.key cannot be kept on disk: Read-only file system'
    root mount -o remount,rw $state
    # Nobody could know a token that is not kept.
    root rm $state/token
    fill $state
    ctl restart codex-proxy.service
    state_is config-error
    user curl -sS -d '{"model":"demo","input":"x"}' "http://127.0.0.1:$port/v1/responses" |
        grep -F 'the token cannot be made: No space left on device'
    tell "$(user codex-proxyctl status | grep -F 'wrong:')"
    root sh -c "rm $state/filler.*"
    ctl reload codex-proxy.service
    soon 5 state_is ready
    [ "$(request)" = 200 ]
    with_cap
}
no_room_for_records() {
    no_cap
    small_disk $runtime
    fill $runtime
    ctl restart codex-proxy.service
    degraded "$runtime cannot be written: No space left on device"
    with_cap
}
damaged() { # what the proxy keeps is set aside, told and made anew
    local file
    no_cap
    ctl restart codex-proxy.service
    user codex-proxyctl catalogue refresh
    for file in $state/{token,opaque.key,catalogue.json} $runtime/{suspects.json,in-flight,exit}; do
        root sh -c "printf '\\377\\000garbage\\n' >$file && chown alice:alice $file"
    done
    ctl restart codex-proxy.service
    state_is ready
    [ "$(request)" = 200 ]
    for file in $state/{token,opaque.key,catalogue.json} $runtime/suspects.json; do
        root sh -c "grep -q garbage $file.corrupt-1"
        soon 5 root sh -c "journalctl -b -o cat _PID=$(main_pid) CODEX_PATH=$file | grep 'set aside'"
    done
    for file in token opaque.key; do root sh -c "grep -qx '[A-Za-z0-9_-]\\{43\\}' $state/$file"; done
    user codex-proxyctl catalogue refresh
    root grep -q base_instructions $state/catalogue.json
    with_cap
}

# --- secrets ---
secrets() { # none is where it does not belong, not even with all that can be logged
    local wrong secret found
    no_cap
    user sh -c 'printf "[Service]\nExecStart=\nExecStart=/usr/bin/codex-proxy --log trace\n" \
        >~/.config/systemd/user/codex-proxy.service.d/log.conf
        mkdir -p ~/.config/codex-proxy/keys; umask 077; echo sk-planted-key-0123456789 >~/.config/codex-proxy/keys/slow'
    ctl daemon-reload
    configure '[providers.slow]
base_url = "http://127.0.0.1:9000/v1"
dialect = "openai"
key = { file = "~/.config/codex-proxy/keys/slow" }
headers = { x-planted = "planted-header" }
[models.planted-model]
routes = ["slow/m"]'
    ctl restart codex-proxy.service
    secrets_seen >"$work/$name.seen"
    (slow_upstream --refuse && [ "$(request planted-model planted-prompt)" = 400 ])
    not user grep -F sk-planted-key-0123456789 /tmp/answer
    (slow_upstream --seconds 0 && [ "$(request planted-model planted-prompt)" = 200 ])
    user grep -q 'told in full' /tmp/answer
    [ "$(user curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer planted-bearer' \
        "http://127.0.0.1:$port/v1/models?key=planted-parameter")" = 401 ]
    secrets_seen >>"$work/$name.seen"
    for wrong in 'base_url = "https://h.example/v1?key=planted-query"' \
        'base_url = "https://planted-user:planted-password@h.example/v1"' 'key = "planted-inline"' \
        'key = { file = "planted' 'headers = { authorization = "planted-header" }'; do
        configure "[providers.slow]
$wrong"
        not user busctl --user call "${face[@]}" Reload 2>&1 | tee -a "$work/$name.seen"
        ctl restart codex-proxy.service
        state_is config-error
        [ "$(request)" = 400 ]
        user cat /tmp/answer
        secrets_seen >>"$work/$name.seen"
    done
    root journalctl -b -o export >>"$work/$name.seen"
    # The control: this is looked for where it is to be found.
    grep -q -a planted-model "$work/$name.seen"
    for secret in sk-planted-key-0123456789 planted-{header,prompt,bearer,parameter,query,user,password,inline} \
        'told in full' "$(root cat $state/token)" "$(root cat $state/opaque.key)"; do
        if grep -a -F -e "$secret" "$work/$name.seen"; then echo "seen: $secret"; return 1; fi
        found=$(root grep -r -l -F -e "$secret" $state $runtime || true)
        case $found in '' | "$state/token" | "$state/opaque.key") ;; *) echo "$secret is in $found"; return 1 ;; esac
    done
    user rm -r /home/alice/.config/codex-proxy/keys
    configure ''
    with_cap
    ctl restart codex-proxy.service
}
secrets_seen() { # what anybody sees of our processes, and what the bus shows
    user busctl --user --json=short call "${face[@]:0:2}" org.freedesktop.DBus.Properties GetAll s "${face[0]}"
    # shellcheck disable=SC2016  # expanded in the box
    root sh -c 'for pid in $(pgrep -x codex-proxy); do cat /proc/$pid/cmdline /proc/$pid/environ; done | tr "\\0" "\\n"'
    user codex-proxyctl status || true
}

# --- figures ---
# For information: how long the first connection to a proxy that is not running waits for its answer, and how long nobody
# is answered when it is killed.
figures() {
    no_cap
    ctl restart codex-proxy.service
    local cold='' killed=''
    for _ in 1 2 3 4 5 6 7; do
        ctl stop codex-proxy.service
        cold+=" $(user curl -sS --fail -o /dev/null -w '%{time_starttransfer}' "http://127.0.0.1:$port/health")"
        killed+=" $(user bash -c "kill -9 $(main_pid); begun=\$EPOCHREALTIME
            curl -sS --fail -o /dev/null http://127.0.0.1:$port/health
            echo \$(((\${EPOCHREALTIME/./} - \${begun/./}) / 1000))")"
    done
    tell "cold start, connect to first byte, s:$cold"
    tell "from kill -9 to an answer, ms:$killed"
    with_cap
}
