#!/usr/bin/env bash
# Runs every test on a PostgreSQL of its own, then the checks of form. Extra arguments go to `cargo nextest run`.
# Leaves nothing behind, also when it fails or is interrupted; may run twice at the same time.
set -euo pipefail
cd "$(dirname "$0")/.."
# Without traces: the last lines of a run that failed say why.
export SQLX_OFFLINE=true RUST_BACKTRACE=0 RUST_LIB_BACKTRACE=0 PATH="$HOME/.cargo/bin:$PATH"
# shellcheck source=throwaway-postgres.sh
. scripts/throwaway-postgres.sh

FORM='' FORM_LOG=$(mktemp) FORM_DONE=$(mktemp)
leave() {
    [ -z "$FORM" ] || pkill -P "$FORM" 2>/dev/null || true
    rm -f "$FORM_LOG" "$FORM_DONE"
    stop_postgres
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n== %s\n' "$*"; }

# What the compiler says of the code without running it. In a folder of its own, so that nobody waits for its lock.
form() {
    local windows=x86_64-pc-windows-gnu
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/form
    cargo fmt --all --check
    nice -n 19 cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$windows" ] && command -v x86_64-w64-mingw32-gcc >/dev/null; then
        nice -n 19 cargo check --locked --quiet --target "$windows" -p flatrender-activities
    else
        echo "not compiled for Windows: it takes 'rustup target add $windows' and a C compiler for it, x86_64-w64-mingw32-gcc"
    fi
}

step "build"
# All programs first: tests of one part run the programs of the others.
cargo build --locked --workspace --all-targets

# Tests wait more than they compute: the rest of the machine does this meanwhile.
(form; echo done >"$FORM_DONE") >"$FORM_LOG" 2>&1 &
FORM=$!

step "tests of the engine"
start_postgres
cargo nextest run --locked --workspace --no-fail-fast --no-tests pass -E 'package(flatrender-engine)' "$@"

step "tests of all else"
prefill_postgres
cargo nextest run --locked --workspace --no-fail-fast --no-tests pass -E 'not package(flatrender-engine)' "$@"

step "a mail server, a browser and a receiver of webhooks of others"
scripts/notifications.sh
scripts/webhooks.sh

step "the dashboard in a browser"
if command -v chromedriver >/dev/null; then
    scripts/dashboard.sh
else
    echo "not checked: it takes chromium and chromedriver"
fi

step "budgets of the engine"
# On a server of its own: what the databases of the tests still have vacuumed would be counted too.
stop_postgres
start_postgres -c autovacuum=off
"${CARGO_TARGET_DIR:-target}/debug/flatrender-bench" gate

step "examples in the documentation"
cargo test --locked --workspace --doc --quiet

step "a node links no SQL"
if cargo tree --locked --quiet -e normal -p flatrender-activities -i sqlx 2>/dev/null | grep -q .; then
    echo "error: flatrender-node depends on sqlx" >&2
    exit 1
fi

step "form, and the node compiled for Windows"
# How it ended is in a file: a shell forgets that of a process that it has waited for, or whose number somebody else has had since, and
# says so.
wait "$FORM" 2>/dev/null || true
[ -s "$FORM_DONE" ] || { cat "$FORM_LOG" >&2; exit 1; }
cat "$FORM_LOG"

step "all tests passed"
