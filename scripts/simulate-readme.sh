#!/usr/bin/env bash
# Renews the table of workflows/dispatch/README.md: policies side by side, as `flatrender simulate` finds them. Takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"
table=$(mktemp)
trap 'rm -f "$table"' EXIT
cargo run --locked --quiet -p flatrender-api --bin flatrender -- simulate --markdown "$@" >"$table"
awk -v table="$table" '
    /<!-- simulate -->/ { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1; next }
    /<!-- end -->/ { skip = 0 }
    !skip' workflows/dispatch/README.md >"$table.new"
mv "$table.new" workflows/dispatch/README.md
