#!/usr/bin/env bash
# A library that we did not write takes our webhooks, and refuses those that are forged or old. Takes Python 3 and its package index; the
# library is kept in target/webhooks.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

home="${CARGO_TARGET_DIR:-target}/webhooks"
if [ ! -x "$home/bin/python3" ] || ! "$home/bin/python3" -c 'import standardwebhooks' 2>/dev/null; then
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check standardwebhooks==1.1.0
fi
export FLATRENDER_WEBHOOKS_PYTHON="$PWD/$home/bin/python3"
case "$home" in /*) FLATRENDER_WEBHOOKS_PYTHON="$home/bin/python3" ;; esac

if [ -z "${DATABASE_URL:-}" ]; then
    . scripts/throwaway-postgres.sh
    trap stop_postgres EXIT
    start_postgres
fi
cargo nextest run --locked --workspace --run-ignored only -E 'binary(webhooks) and test(/^foreign::/)'
