#!/usr/bin/env bash
# Shows the main job from nothing: builds the proxy, starts it in a home of its own, and plays the built-in model `demo`
# against it. No provider, no key and no internet are needed beyond what cargo fetches. Nothing of yours is touched: all
# that is written lies in cargo's target directory and in a temporary directory that is removed at the end.
#
# Wants Rust; a missing C compiler is installed with apt-get (as root or by `sudo -n`). Builds with the `dev` profile,
# which is the quicker one. Ends with status 0 only if every step succeeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'demo: %s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# --- What is needed ----------------------------------------------------------------------------------------------------
command -v cargo >/dev/null ||
    die "cargo is missing; install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer"
if ! command -v cc >/dev/null; then
    say "installing from Debian: gcc libc6-dev"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "there is no C compiler; install gcc and libc6-dev as root and run this again"
        as_root=(sudo -n)
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
fi

say "building (dev profile); the first time takes a minute or two"
cargo build --locked --quiet --bins
target=$(cargo metadata --locked --no-deps --format-version 1 | sed -nE 's/.*"target_directory":"([^"]*)".*/\1/p')
[ -x "$target/debug/codex-proxy" ] || die "no program in $target/debug; is another target set for cargo?"

# --- A proxy in a home of its own --------------------------------------------------------------------------------------
home=$(mktemp -d)
proxy=
clean_up() {
    local status=$?
    if [ -n "$proxy" ]; then
        kill -TERM "$proxy" 2>/dev/null || true # already gone: `wait` says how
        if wait "$proxy"; then say "the proxy is stopped"; else status=1; fi
    fi
    if [ "$status" -ne 0 ]; then
        if [ -s "$home/log" ]; then say "the proxy's log:" && cat "$home/log"; fi
        say "FAILED"
    fi
    rm -rf "$home"
    exit "$status"
}
trap clean_up EXIT
isolated=(env -i HOME="$home" PATH="$PATH" LANG=C.UTF-8 TERM="${TERM:-dumb}" "NO_PROXY=127.0.0.1,localhost")

# The one line on its standard output comes when connections are taken.
mkfifo "$home/out"
"${isolated[@]}" "$target/debug/codex-proxy" --listen 127.0.0.1:0 >"$home/out" 2>"$home/log" &
proxy=$!
exec 3<"$home/out"
IFS= read -r -t 30 line <&3 || die "the proxy does not start"
case $line in
    "listening on 127.0.0.1:"*) port=${line##*:} ;;
    *) die "the proxy says: $line" ;;
esac
say "codex-proxy is $line"

# --- The demo ----------------------------------------------------------------------------------------------------------
kept=$target/demo
rm -rf "$kept"
"${isolated[@]}" "$target/debug/codex-proxyctl" demo --port "$port" --keep "$kept"
file=$kept/codex-proxy-demo.md
[ -s "$file" ] || die "$file was not written"
echo
say "the file $file begins:"
head -n 5 "$file" | sed 's/^/    /'

# --- The same with the real client, where there is one -----------------------------------------------------------------
codex=$(command -v codex || sed -n 's/^CODEX_BIN=//p' tests/.setup/env 2>/dev/null || true)
if [ -n "$codex" ] && [ -x "$codex" ]; then
    echo
    say "$("${isolated[@]}" "$codex" --version 2>/dev/null) asks the model \`demo\` through the same proxy"
    mkdir "$home/codex" "$home/work"
    printf 'check_for_update_on_startup = false\nweb_search = "disabled"\n[analytics]\nenabled = false\n' \
        >"$home/codex/config.toml"
    "${isolated[@]}" "$target/debug/codex-proxyctl" setup --port "$port" --model demo --codex-home "$home/codex" >/dev/null
    # No sandbox, which may not exist here: the model is a script, and all it runs is `uname` and `test`.
    (cd "$home/work" && timeout 120 "${isolated[@]}" CODEX_HOME="$home/codex" "$codex" exec --skip-git-repo-check \
        -s danger-full-access "Show me that everything works." </dev/null 2>"$home/codex.log") ||
        { cat "$home/codex.log" >&2; die "codex exec failed"; }
    cmp "$home/work/codex-proxy-demo.md" "$file" || die "Codex did not write the file"
    say "Codex wrote the same file"
else
    say "skipped: the same with the real client, since there is no \`codex\` on the PATH nor in tests/.setup"
fi

cat <<TEXT

To use it with Codex:
    cargo build --release                    # the programs are then in $target/release
    codex-proxy                              # listens on 127.0.0.1:8459; leave it running
    codex-proxyctl setup                     # points Codex to it; \`codex-proxyctl restore\` undoes that
    codex -m demo                            # or a model of ~/.config/codex-proxy/config.toml, see README.md
TEXT
