#!/usr/bin/env bash
# Renews .sqlx: the shapes of all queries, as a freshly migrated database tells them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
# shellcheck source=throwaway-postgres.sh
. scripts/throwaway-postgres.sh

trap stop_postgres EXIT
trap 'exit 130' INT TERM

cargo sqlx --version >/dev/null 2>&1 ||
    cargo install --quiet --locked sqlx-cli@0.9.0 --no-default-features --features postgres,rustls
start_postgres
SQLX_OFFLINE=false cargo sqlx migrate run --source migrations
SQLX_OFFLINE=false cargo sqlx prepare --workspace -- --all-targets --all-features
