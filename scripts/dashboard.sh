#!/usr/bin/env bash
# The dashboard in a real Chromium: every page in both languages, in one light and in the other dark, checked with axe, and the ways people
# go: a cause of failures is found and all of it tried again, a node is drained, pictures of scenes are made. With the begin of a test's name:
# those tests alone, such as `every`. With `pages [runs]`: how long what the pages ask for takes over ten million runs, or so many, and that it
# is no longer than it may be; minutes, and a kilobyte of disk a run. Takes chromium and chromedriver (Debian: chromium, chromium-driver),
# Python 3 and its package index once.
# Pictures of the pages are kept in target/dashboard/pictures. Needs DATABASE_URL, or starts a PostgreSQL of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

if [ "${1:-}" = pages ]; then
    # shellcheck source=throwaway-postgres.sh
    . scripts/throwaway-postgres.sh
    trap stop_postgres EXIT
    # What it is filled with is tidied up once, at the end.
    FLATRENDER_TMP=/tmp start_postgres -c shared_buffers=2GB -c max_wal_size=8GB -c wal_level=minimal -c max_wal_senders=0 -c autovacuum=off
    export FLATRENDER_RUNS="${2:-10000000}"
    cargo nextest run --locked --profile soak --workspace --run-ignored only --no-capture -E 'binary(http) and test(/^pages::/)'
    exit
fi

home="${CARGO_TARGET_DIR:-target}/dashboard"
case "$home" in /*) ;; *) home="$PWD/$home" ;; esac
axe() { find "$home/python" -name axe.min.js 2>/dev/null | head -n 1; }
if [ -z "$(axe)" ]; then
    python3 -m venv "$home/python"
    "$home/python/bin/pip" install --quiet --disable-pip-version-check axe-playwright-python==0.1.8 --no-deps
fi
FLATRENDER_AXE=$(axe)
export FLATRENDER_AXE FLATRENDER_PICTURES="$home/pictures"
command -v chromedriver >/dev/null || { echo "error: chromedriver is missing: install chromium and chromium-driver" >&2; exit 1; }

if [ -z "${DATABASE_URL:-}" ]; then
    # shellcheck source=throwaway-postgres.sh
    . scripts/throwaway-postgres.sh
    trap stop_postgres EXIT
    start_postgres
fi
# One browser at a time: each is given time to show a page.
cargo nextest run --locked --workspace --run-ignored only --test-threads 1 -E "binary(http) and test(/^browser::(\w+::)?${1:-}/)"
