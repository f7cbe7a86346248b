#!/usr/bin/env bash
# Shows the real Codex at work through the installed package with a provider of each protocol, on Debian 12 and 13, each with
# a real systemd (see tests/systemd-box). Ends with one line, `N passed, N failed`.
#
#   tests/protocols.sh [--deb FILE] [SUITE]...
#
# FILE is the newest package in target/debian/ unless given (tests/package.sh makes one). For each protocol: commands side by
# side, a patch on disk, a picture, thoughts that come back in the turn and in the next one; and each class of error, with
# what Codex shows, how it ends, how often it asked and how often the provider was asked. The table is printed, and left in
# target/units/SUITE.protocols.txt. The provider is tests/support/protocol_upstream.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/support/suites.sh
. tests/support/suites.sh
port=8459 # codex-proxy.socket

while [ $# -gt 0 ]; do
    case $1 in
        --deb) deb=$2; shift ;;
        -*) usage ;;
        *) suites+=("$1") ;;
    esac
    shift
done
defaults
codex_or_exit

kept=$PWD/target/units
mkdir -p "$kept"
# shellcheck source=tests/support/box.sh
. tests/support/box.sh

protocols=(responses chat messages gemini)
# Case, how Codex ends, how often it asks (it may twice), how often the provider is asked, and what Codex shows.
errors=(
    "credentials   1  1  1  SCRIPTED"
    "budget        1  1  1  SCRIPTED"
    "rate          1  2  6  429 Too Many Requests"
    "server        1  2  8  SCRIPTED"
    "overload      1  2  6  SCRIPTED"
    "context       1  1  1  ran out of room"
    "bad           1  1  1  SCRIPTED"
    "rate-once     0  1  2  after all"
    "server-once   0  1  2  after all"
    "overload-once 0  1  2  after all"
)

# --- one suite ---------------------------------------------------------------------------------------------------------
model_of() {
    case $1 in
        responses) echo gpt-5.4 ;;
        chat) echo kimi-k3 ;;
        messages) echo claude-opus-5-5 ;;
        gemini) echo gemini-3.8-flash ;;
    esac
}
config() { # all protocols, and a model for each error
    local protocol error url model
    # What is tried again is tried for three seconds.
    printf '[proxy]\nretry_deadline_s = 3\n'
    for protocol in "${protocols[@]}"; do
        url=http://127.0.0.1:9000/v1
        [ "$protocol" != gemini ] || url=http://127.0.0.1:9000
        model=$(model_of "$protocol")
        printf '[providers.%s]\nprotocol = "%s"\nbase_url = "%s"\n' "$protocol" "$protocol" "$url"
        printf 'key = { file = "~/.config/codex-proxy/keys/scripted" }\n'
        [ "$protocol" = responses ] || printf 'images = true\n'
        [ "$protocol" != chat ] || printf 'dialect = "openrouter"\n'
        printf '[models.%s]\nroutes = ["%s/%s"]\nimages = true\n' "$protocol" "$protocol" "$model"
        for error in "${errors[@]%% *}"; do
            printf '[models.%s-%s]\nroutes = ["%s/%s-fails-%s"]\nimages = true\n' \
                "$protocol" "$error" "$protocol" "$model" "$error"
        done
    done
}
begin() {
    "$box" install "$name" "$deb"
    user sh -c 'umask 077 && mkdir -p ~/.config/codex-proxy/keys ~/.codex ~/work &&
        echo sk-scripted-key >~/.config/codex-proxy/keys/scripted &&
        printf "[analytics]\nenabled = false\n" >~/.codex/config.toml &&
        echo iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC |
            base64 -d >~/work/pixel.png'
    configure "$(config)"
    ctl enable --now codex-proxy
    user codex-proxyctl setup --default --model messages
    state_is ready
}
# codex MODEL ARGUMENT…: its events go to a file in the box; prints how it ended
codex() {
    local model=$1
    shift
    printf '%q ' "$@" >"$work/$name.arguments"
    user sh -c "cd ~/work && NO_PROXY=127.0.0.1 timeout 120 codex exec --json --skip-git-repo-check -s danger-full-access \
        -c model_providers.codex-proxy.stream_max_retries=1 -m $model $(cat "$work/$name.arguments") \
        </dev/null >/tmp/events.json 2>/tmp/errors; echo \$?"
}
shown() { # what the user was told at the end
    user jq -rs '[.[] | select(.type == "turn.failed") | .error.message] + [.[] | select(.item.type == "agent_message") |
        .item.text] | last // "nothing"' /tmp/events.json
}
asked() { # how many requests the proxy has answered
    local token
    token=$(user codex-proxyctl token --port $port)
    user curl -sS --max-time 15 -H "Authorization: Bearer $token" "http://127.0.0.1:$port/metrics" |
        awk '/^codex_proxy_requests_total/ { sum += $2 } END { print sum + 0 }'
}
tried() { grep -c "^$1 " "$work/$name.transcript" || true; }
row() { printf '%s\n' "$*" >>"$work/$name.rows"; }
said() { # said WHAT: with that word Codex ended, and nothing went wrong on the way
    local words
    words=$(shown)
    grep -F -e "$1" <<<"$words" || { user cat /tmp/events.json /tmp/errors; cat "$work/$name.transcript"; return 1; }
    not grep -F WRONG "$work/$name.transcript"
}
works() { # works PROTOCOL: a turn with everything
    local before
    before=$(asked)
    user sh -c 'cd ~/work && rm -f one.txt two.txt patched.txt'
    [ "$(codex "$1" -i pixel.png -- 'do it')" = 0 ]
    said "$1: turn 1 is done"
    [ "$(user cat /home/alice/work/one.txt /home/alice/work/two.txt /home/alice/work/patched.txt)" = $'one\ntwo\none "größe"' ]
    [ "$(user jq -s '[.[] | select(.type == "item.completed" and .item.type == "command_execution")] | length' \
        /tmp/events.json)" = 2 ]
    user jq -es 'any(.[]; .item.type == "file_change") and any(.[]; .item.type == "reasoning")' /tmp/events.json
    user jq -es 'any(.[]; .type == "turn.completed" and .usage.input_tokens == 300 and .usage.cached_input_tokens == 180)' \
        /tmp/events.json
    row "$1 | two commands, a patch on disk, a picture, thoughts given back | 0 | $(shown) | $(($(asked) - before)) | $(tried "$1 step")"
    [ "$(($(asked) - before)) $(tried "$1 step")" = '3 3' ]
}
goes_on() { # goes_on PROTOCOL: the next turn, in a new process
    local before
    before=$(asked)
    [ "$(codex "$1" resume --last -- 'and now')" = 0 ]
    said "$1: turn 2 is done"
    row "$1 | the next turn: all thoughts of the first given back | 0 | $(shown) | $(($(asked) - before)) | $(($(tried "$1 step") - 3))"
    [ "$(($(asked) - before)) $(tried "$1 step")" = '1 4' ]
}
fails() { # fails PROTOCOL CASE EXIT ASKED TRIED WORDS
    local before exit requests attempts
    before=$(asked)
    exit=$(codex "$1-$2" -- 'do it')
    requests=$(($(asked) - before)) attempts=$(tried "$1 $2")
    row "$1 | $2 | $exit | $(shown | tr '\n|' '  ' | cut -c 1-150) | $requests | $attempts"
    said "$6"
    [ "$exit $requests $attempts" = "$3 $4 $5" ] || { echo "exit, asked, tried: $exit $requests $attempts, not $3 $4 $5"; return 1; }
}
try_suite() {
    local protocol error case exit asked tried words host
    "$box" up "$name" --suite "$suite" --bind "$codex:/usr/local/bin/codex"
    : >"$work/$name.transcript"
    "$box" hostexec "$name" python3 tests/support/protocol_upstream.py 9000 "$work/$name.transcript" &
    host=$!
    check "install, configure and start" begin
    for protocol in "${protocols[@]}"; do
        check "$protocol: commands side by side, a patch, a picture, thoughts" works "$protocol"
        check "$protocol: the next turn" goes_on "$protocol"
        for error in "${errors[@]}"; do
            read -r case exit asked tried words <<<"$error"
            check "$protocol: $case" fails "$protocol" "$case" "$exit" "$asked" "$tried" "$words"
        done
    done
    kill "$host"
    "$box" down --kill "$name"
}

# --- all suites --------------------------------------------------------------------------------------------------------
"$box" build "${suites[@]}"
jobs=()
for suite in "${suites[@]}"; do
    name=prot-$$-$suite
    names+=("$name")
    try_suite >"$work/result.$name" 2>&1 &
    jobs+=($!)
done
broken=0
for job in "${jobs[@]}"; do wait "$job" || broken=$((broken + 1)); done
for name in "${names[@]}"; do cat "$work/result.$name"; done | tee "$work/result"
for suite in "${suites[@]}"; do
    [ -e "$work/prot-$$-$suite.rows" ] || continue
    {
        echo 'protocol | what | exit | what Codex showed | Codex asked | the provider was asked'
        cat "$work/prot-$$-$suite.rows"
    } >"$kept/$suite.protocols.txt"
    echo
    echo "$suite (target/units/$suite.protocols.txt):"
    sed 's/^/    /' "$kept/$suite.protocols.txt"
done
echo
passed=$(grep -c '^ok ' "$work/result" || true)
failed=$(($(grep -c '^FAILED ' "$work/result" || true) + broken))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
