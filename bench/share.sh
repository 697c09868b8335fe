#!/usr/bin/env bash
# Renders the promo sample three times on a platform of its own and says where the wall time went.
# Usage: bench/share.sh [HEIGHT]     needs a release build (`make build`) and psql
set -euo pipefail
cd "$(dirname "$0")/.."
height=${1:-720}
data=$(mktemp -d /tmp/flatrender-bench-XXXXXX)
chmod 711 "$data"
target/release/flatrender up --data "$data" --listen 127.0.0.1:0 >"$data/up.out" 2>"$data/up.err" &
up=$!
trap 'kill "$up" 2>/dev/null; wait "$up" 2>/dev/null; rm -rf "$data"' EXIT
for _ in $(seq 100); do [ -f "$data/server.json" ] && break; sleep 0.1; done

for round in 1 2 3; do
    target/release/flatrender render --data-dir "$data" --template promo --data templates/promo/samples/en.json \
        --height "$height" --out "$data/film.mp4" --json >"$data/render.json"
    render=$(grep -o '"id": *"[0-9a-f-]*"' "$data/render.json" | head -n 1 | grep -o '[0-9a-f-]\{36\}')
    echo "== round $round, $height p"
    psql -h "$(readlink -f "$data/postgres")/run" -U flatrender -d postgres -X -q -v render="$render" -f bench/share.sql
done
