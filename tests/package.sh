#!/usr/bin/env bash
# Builds the Debian package into target/debian/ and lets lintian judge it. The last line is `N passed, N failed`.
#
#   tests/package.sh                  codex-proxy_<version>_<architecture>.deb
#   tests/package.sh --reproducible   builds it twice, in other circumstances, and compares
#
# From nothing it wants Debian 12 (whose libraries are the oldest that the package is to run with) with Rust, and the
# right to use apt-get (root or sudo). The tree is copied before; nothing is written but under target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
out=$top/target/debian
arch=$(dpkg --print-architecture)

missing=()
want() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed || missing+=("$1"); }
for package in build-essential debhelper fakeroot lintian python3; do want $package; done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing from Debian: ${missing[*]}"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

passed=0 failed=0
check() {
    local name=$1
    shift
    if "$@" >"$out/check.log" 2>&1 </dev/null; then
        echo "ok      $name"
        passed=$((passed + 1))
    else
        echo "FAILED  $name"
        tail -n 60 "$out/check.log"
        failed=$((failed + 1))
    fi
}

# copy DIR: what belongs to the source, with its times, so that an earlier build is not done again.
copy() {
    rm -rf "$1"
    mkdir -p "$1"
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
            [ ! -e "$file" ] || printf '%s\0' "$file"
        done
    else
        find . \( -path ./target -o -path ./tests/.setup \) -prune -o -type f -print0
    fi | tar --null --files-from - -cf - | tar -C "$1" -xf -
}

# build SOURCE RESULT: the packages of the tree SOURCE into the directory RESULT.
build() (
    cd "$1"
    # -d: the toolchain need not be Debian's; what is missing of it shows at once.
    nice dpkg-buildpackage --build=binary --no-sign --no-check-builddeps --no-post-clean \
        >"$2.log" 2>&1 || { tail -n 60 "$2.log"; return 1; }
    rm -rf "$2"
    mkdir -p "$2"
    mv ../codex-proxy_* "$2"
)

glibc() { # the libc6 that the package asks for is Debian 12's or older
    local version
    version=$(dpkg-deb -f "$1" Depends | grep -oP 'libc6 \(>= \K[^)]+')
    echo "libc6 $version"
    dpkg --compare-versions "$version" le 2.36
}

# Every tag counts, whatever its severity; but what it takes for misspelt words in programs are bytes.
judge() {
    local status=0
    lintian --allow-root -EviIL +pedantic --suppress-tags spelling-error-in-binary "$1" >"$out/lintian.log" \
        2>&1 || status=$?
    grep -E '^[A-Z]: ' "$out/lintian.log" | grep -v '^N:' && return 1
    return $status
}

case ${1:-} in
'')
    copy "$out/source/codex-proxy"
    # What earlier runs compiled is used again: this package is to try, not to publish.
    CARGO_TARGET_DIR=$out/build MANUAL_TARGET_DIR=$top/target build "$out/source/codex-proxy" "$out/result"
    mv -f "$out"/result/* "$out"
    deb=$(echo "$out"/codex-proxy_*_"$arch".deb)
    check "lintian" judge "$deb"
    check "libc6 of Debian 12 or older" glibc "$deb"
    ls -l "$deb"
    ;;
--reproducible)
    copy "$out/one/codex-proxy"
    copy "$out/somewhere/else/codex-proxy"
    MANUAL_TARGET_DIR=$top/target build "$out/one/codex-proxy" "$out/result-1"
    find "$out/somewhere/else" -exec touch -h -d '2001-01-01' {} +
    (
        umask 027
        export TZ=Pacific/Kiritimati LC_ALL=C DEB_BUILD_OPTIONS=parallel=1
        MANUAL_TARGET_DIR=$top/target build "$out/somewhere/else/codex-proxy" "$out/result-2"
    )
    check "two builds are identical" \
        cmp "$out"/result-1/codex-proxy_*_"$arch".deb "$out"/result-2/codex-proxy_*_"$arch".deb
    if [ "$failed" -eq 0 ]; then rm -rf "$out/one" "$out/somewhere"; fi
    ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
