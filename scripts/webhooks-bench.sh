#!/usr/bin/env bash
# Measures webhooks: WEBHOOKS (100000, as many for each) of them to ENDPOINTS (1000), one in a hundred dead and one slow, at RATE (100) a
# second: a quarter of an hour and some. Fails unless each healthy one was heard once, and 99 of 100 of them within a second of what happened.
# Everything is on this machine: the database, the server, the worker and the receivers. PROFILE=release for the figures.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

if [ -z "${DATABASE_URL:-}" ]; then
    . scripts/throwaway-postgres.sh
    trap stop_postgres EXIT
    start_postgres
fi
cargo test --locked ${PROFILE:+--profile "$PROFILE"} -p flatrender-api --test webhooks -- --ignored --nocapture healthy_receivers_hear
