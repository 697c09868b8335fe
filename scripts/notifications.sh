#!/usr/bin/env bash
# Receivers that we did not write: aiosmtpd takes our mails, http_ece decrypts what browsers are told and PyJWT checks who signed. Takes Python
# 3 and its package index once; they are kept in target/notify. Needs DATABASE_URL, or starts a PostgreSQL of its own.
# `scripts/notifications.sh bench [count]` measures how long telling so many people by three channels takes instead
# (10000 unless said). PROFILE=release for the figures.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

home="${CARGO_TARGET_DIR:-target}/notify"
case "$home" in /*) ;; *) home="$PWD/$home" ;; esac
if [ "${1:-}" != bench ] && ! "$home/bin/python3" -c 'import aiosmtpd, http_ece, jwt' 2>/dev/null; then
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check aiosmtpd==1.4.6 http-ece==1.2.1 'PyJWT[crypto]==2.10.1'
fi
export FLATRENDER_NOTIFY_PYTHON="$home/bin/python3"

if [ -z "${DATABASE_URL:-}" ]; then
    # shellcheck source=throwaway-postgres.sh
    . scripts/throwaway-postgres.sh
    trap stop_postgres EXIT
    start_postgres
fi
if [ "${1:-}" = bench ]; then
    export FLATRENDER_BENCH_NOTIFICATIONS="${2:-10000}"
    cargo nextest run --locked --profile chaos ${PROFILE:+--cargo-profile "$PROFILE"} --workspace --run-ignored only --no-capture \
        -E 'binary(notification) and test(/^bench::/)'
else
    cargo nextest run --locked --workspace --run-ignored only -E 'binary(notification) and test(/^outside::/)'
fi
