#!/usr/bin/env bash
# Installs what is missing, and nothing else: a second run only looks.
#
#   scripts/setup.sh build    a Rust toolchain, a C++ compiler, libclang, PostgreSQL's server programs, ffmpeg
#   scripts/setup.sh test     the same, cargo-nextest, and what it takes to compile the node for Windows, where that can be had
#
# Debian 12 and newer, Ubuntu 22.04 and newer, macOS with Homebrew; as root, or as a user with sudo.
set -euo pipefail

OLDEST_POSTGRES=15
OLDEST_FFMPEG=4.2
RUST=1.95.0
NEXTEST=0.9.143
what=${1:-build}
export PATH="$HOME/.cargo/bin:$PATH"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a program and shows what it said only when it failed.
quietly() {
    local log
    log=$(mktemp)
    "$@" >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; die "this failed: $*"; }
    rm -f "$log"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "installing needs root, and there is no sudo: run this as root once: $*"
    fi
}

# The newest major version of PostgreSQL's server programs here; nothing when there are none.
postgres_major() {
    local program newest=0 major
    for program in "${FLATRENDER_PG_BIN:-/nowhere}/postgres" /usr/lib/postgresql/*/bin/postgres \
        /opt/homebrew/opt/postgresql@*/bin/postgres /usr/local/opt/postgresql@*/bin/postgres \
        /Applications/Postgres.app/Contents/Versions/*/bin/postgres /usr/pgsql-*/bin/postgres "$(command -v postgres || true)"; do
        [ -x "$program" ] || continue
        major=$("$program" --version 2>/dev/null | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
        [ "${major:-0}" -gt "$newest" ] && newest=$major
    done
    [ "$newest" -ge "$OLDEST_POSTGRES" ] && echo "$newest"
}

ffmpeg_good() {
    have ffmpeg && have ffprobe || return 1
    local version
    version=$(ffmpeg -version 2>/dev/null | sed -n '1s/^ffmpeg version n\{0,1\}\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # Builds from a repository carry no number and are newer than any that do not do.
    # shellcheck disable=SC2086
    set -- $version ${OLDEST_FFMPEG/./ }
    [ $# -eq 2 ] || [ "$1" -gt "$3" ] || { [ "$1" -eq "$3" ] && [ "$2" -ge "$4" ]; }
}

# Whether one of these files is there. A pattern that matched nothing stands for itself, and is not.
found() {
    local file
    for file in "$@"; do [ -e "$file" ] && return 0; done
    return 1
}

# bindgen loads libclang and reads the compiler's own headers, stddef.h first of all.
libclang_good() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    [ "$(uname -s)" = Darwin ] && return 0
    found /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* &&
        found /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h \
            /usr/lib64/clang/*/include/stddef.h
}

compiler_good() { have c++ && have cc; }

apt_refreshed=
apt_install() {
    have apt-get || die "cannot install $* here: install it by hand, then run this again"
    say "installing $*"
    if [ -z "$apt_refreshed" ]; then
        quietly as_root apt-get update -qq
        apt_refreshed=yes
    fi
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Debian makes and starts a system-wide cluster when the server is installed. Nobody asked for one: the platform
# keeps its own. Clusters that are there already are not touched, and a setting somebody made stays.
no_system_cluster() {
    local conf=/etc/postgresql-common/createcluster.conf
    [ -e "$conf" ] && return 0
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee "$conf" >/dev/null
}

install_postgres_apt() {
    no_system_cluster
    [ -n "$apt_refreshed" ] || { quietly as_root apt-get update -qq; apt_refreshed=yes; }
    local candidate
    candidate=$(apt-cache policy postgresql 2>/dev/null | sed -n 's/.*Candidate: \([0-9]*\).*/\1/p')
    if [ "${candidate:-0}" -ge "$OLDEST_POSTGRES" ]; then
        apt_install postgresql
    else
        # Ubuntu 22.04 has version 14; the makers of PostgreSQL keep newer ones for it.
        say "this system offers PostgreSQL ${candidate:-none}: adding the PostgreSQL project's own packages"
        apt_install postgresql-common ca-certificates
        quietly as_root /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
        apt_install postgresql-17
    fi
}

setup_apt() {
    compiler_good || apt_install g++
    libclang_good || apt_install libclang-dev
    [ -n "$(postgres_major)" ] || install_postgres_apt
    have ffmpeg && have ffprobe || apt_install ffmpeg
}

setup_brew() {
    xcode-select -p >/dev/null 2>&1 || die "install the command line tools first: xcode-select --install"
    local missing=()
    [ -n "$(postgres_major)" ] || missing+=(postgresql@17)
    have ffmpeg && have ffprobe || missing+=(ffmpeg)
    [ ${#missing[@]} -eq 0 ] && return 0
    have brew || die "install Homebrew (https://brew.sh), then run this again; missing: ${missing[*]}"
    say "installing ${missing[*]}"
    quietly brew install --quiet "${missing[@]}"
}

setup_rust() {
    if ! have cargo; then
        say "installing Rust $RUST for this user, with rustup"
        curl --proto '=https' --tlsv1.2 -sSf --retry 3 https://sh.rustup.rs |
            sh -s -- -y -q --no-modify-path --profile minimal --default-toolchain "$RUST" -c rustfmt -c clippy >/dev/null
    fi
    local version
    # A rustup without a toolchain has a cargo that only complains.
    version=$(cargo --version 2>/dev/null | sed -n 's/cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' || true)
    # shellcheck disable=SC2086
    set -- $version
    if [ "${1:-0}" -lt 1 ] || { [ "$1" -eq 1 ] && [ "${2:-0}" -lt 95 ]; }; then
        have rustup || die "Rust 1.95 or newer is needed, and this is ${version:-none}: install rustup (https://rustup.rs)"
        say "installing Rust $RUST beside ${version:-none}, for this folder"
        rustup toolchain install "$RUST" --profile minimal -c rustfmt -c clippy --no-self-update >/dev/null 2>&1
        rustup override set "$RUST" >/dev/null 2>&1
    fi
}

setup_test_tools() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        have rustup || die "cargo fmt and cargo clippy are missing: install them with your Rust toolchain"
        rustup component add rustfmt clippy >/dev/null 2>&1
    fi
    # Programs of others that take what we send are in Python.
    if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
        have apt-get || die "Python 3 with its module venv is needed for the tests: install it, then run this again"
        apt_install python3-venv
    fi
    # The dashboard is looked at in a real browser. Never a reason to fail: scripts/test.sh says when it had to leave that out.
    have chromedriver || ! have apt-get || (apt_install chromium chromium-driver) || true
    cargo nextest --version >/dev/null 2>&1 && return 0
    say "installing cargo-nextest"
    local os=linux
    [ "$(uname -s)" = Darwin ] && os=mac
    [ "$os-$(uname -m)" = linux-aarch64 ] && os=linux-arm
    mkdir -p "$HOME/.cargo/bin"
    curl -sSfL --retry 2 --max-time 120 "https://get.nexte.st/$NEXTEST/$os" 2>/dev/null |
        tar -xzf - -C "$HOME/.cargo/bin" 2>/dev/null ||
        { say "building cargo-nextest (a few minutes, once)"; cargo install --quiet --locked cargo-nextest; }
}

# The node runs beside After Effects, on Windows: that it compiles is checked wherever the parts can be had. Never a
# reason to fail: scripts/test.sh says when it had to leave the check out.
setup_windows_check() {
    local target=x86_64-pc-windows-gnu
    have rustup || return 0
    if ! rustup target list --installed 2>/dev/null | grep -q "^$target$"; then
        say "installing Rust's library for $target"
        rustup target add "$target" >/dev/null 2>&1 || return 0
    fi
    # One library of the node is C and assembly.
    if ! have x86_64-w64-mingw32-gcc && have apt-get; then
        (apt_install gcc-mingw-w64-x86-64) || return 0
    fi
}

have curl || die "curl is needed"
case "$(uname -s)" in
    Darwin) setup_brew ;;
    Linux)
        if have apt-get; then
            setup_apt
        elif ! compiler_good || ! libclang_good || [ -z "$(postgres_major)" ] || ! ffmpeg_good; then
            die "install these, then run this again: a C++ compiler, clang with libclang, PostgreSQL $OLDEST_POSTGRES or newer, ffmpeg $OLDEST_FFMPEG or newer"
        fi
        ;;
    *) die "this runs on Linux and macOS" ;;
esac
ffmpeg_good || die "ffmpeg $OLDEST_FFMPEG or newer is needed, and this is $(ffmpeg -version 2>/dev/null | head -n 1 | cut -d' ' -f3): install a newer one ahead of it in PATH"
setup_rust
if [ "$what" = test ]; then
    setup_test_tools
    setup_windows_check
fi
exit 0
