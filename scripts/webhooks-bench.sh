#!/usr/bin/env bash
# Measures webhooks: WEBHOOKS (10000) of them to ENDPOINTS (1000), one in a hundred dead and one slow, at RATE (100) a second.
# Everything is on this machine: the database, the server, the worker and the receivers.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

if [ -z "${DATABASE_URL:-}" ]; then
    . scripts/throwaway-postgres.sh
    trap stop_postgres EXIT
    start_postgres
fi
cargo test --locked ${PROFILE:+--profile "$PROFILE"} -p flatrender-api --test webhooks -- --ignored --nocapture healthy_receivers_hear
