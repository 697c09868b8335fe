#!/usr/bin/env bash
# Fuzzes every operation of the API of a live server from its OpenAPI document with schemathesis, which we did not write: no answer may be
# an error of the server, and each has to be what the document says. Minutes: so many as the first argument says, 5 when there is none.
# Further arguments go to schemathesis. Takes Python 3 and its package index once. The report is kept in target/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"
minutes=${1:-5}
[ $# -eq 0 ] || shift
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/fuzz"
home=$target/fuzz program=${FLATRENDER_PROGRAM:-$target/debug/flatrender}

[ -x "$home/python/bin/schemathesis" ] || {
    python3 -m venv "$home/python"
    "$home/python/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5
}
[ -n "${FLATRENDER_PROGRAM:-}" ] || cargo build --locked --workspace

# shellcheck source=throwaway-postgres.sh
. scripts/throwaway-postgres.sh
work=$(mktemp -d) server=
leave() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    stop_postgres
    rm -rf "$work"
}
trap leave EXIT
start_postgres
psql() { command psql -X -q -t -A -v ON_ERROR_STOP=1 "$DATABASE_URL" "$@"; }

"$program" migrate >/dev/null
port=$((20000 + RANDOM % 10000))
url=http://127.0.0.1:$port
"$program" serve --listen "127.0.0.1:$port" --public-url "$url" --storage "$work/storage" --scratch "$work/scratch" \
    --private "$work/private" >"$home/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do curl -fs "$url/readyz" >/dev/null && break; sleep 0.1; done
curl -fs "$url/readyz" >/dev/null || { cat "$home/server.log" >&2; exit 1; }

# Somebody who may do everything, signed in for a day.
"$program" admin create-owner --email fuzz@example.com >/dev/null
token=fr_at_$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')
psql <<SQL
update identity.users set email_verified_at = now(), status = 'active', is_platform_staff = true where email = 'fuzz@example.com';
insert into identity.role_bindings (tenant_id, user_id, role)
select tenant_id, id, 'platform_admin' from identity.users where email = 'fuzz@example.com';
insert into identity.user_sessions (tenant_id, user_id, token_family, access_hash, access_expires_at, auth_level, mfa_at, idle_expires_at, absolute_expires_at)
select tenant_id, id, gen_random_uuid(), sha256('$token'), now() + interval '1 day', 2, now(), now() + interval '1 day', now() + interval '1 day'
from identity.users where email = 'fuzz@example.com';
-- What is to be tried is what is behind the budget of requests.
insert into identity.tenant_limits (tenant_id, name, hard, window_seconds)
select u.tenant_id, l.name, 10000000, 60 from identity.users u, unnest(array['requests', 'caller_requests']) l (name)
where u.email = 'fuzz@example.com';
SQL

# One worker: with several, Python 3.11 may fail by itself ("AST constructor recursion depth mismatch").
# Left to the tests: streams, which have no end; what signs out, removes or locks out whoever asks; identity providers, which are servers
# that the fuzzer would name.
export SCHEMATHESIS_HOOKS=$PWD/scripts/fuzz_hooks.py
cd "$home"
python/bin/schemathesis run "$url/openapi.json" \
    --header "Authorization: Bearer $token" --max-time $((minutes * 60)) --request-timeout 30 --workers 1 \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path-regex '/events$|^/v1/auth/|^/v1/me$|^/v1/me/sessions|^/v1/platform/tenants|^/v1/identity-providers' --suppress-health-check all \
    --report junit --report-dir . --no-color "$@"
