# Sourced: a PostgreSQL for the time of a script, on a free port of this machine, in a temporary folder.
#
#   start_postgres     sets DATABASE_URL; needs a role that may make databases, as tests do; arguments go to the server
#   prefill_postgres   lets every new database begin with our tables, as sqlx would have made them: template1 gets them.
#                      It saves each test the migrations
#   stop_postgres      stops it and removes everything; safe to call at any time, and twice
#
# It keeps nothing, so it does not wait for the disk.

PG_HOME=

pg_bin() {
    local dir best= newest=0 major
    for dir in ${FLATRENDER_PG_BIN:-} /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin \
        /usr/local/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin /usr/pgsql-*/bin \
        "$(dirname "$(command -v postgres || echo /nowhere/x)")"; do
        [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] || continue
        major=$("$dir/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
        if [ "${major:-0}" -gt "$newest" ]; then newest=$major best=$dir; fi
    done
    [ "$newest" -ge 15 ] || { echo "error: PostgreSQL 15 or newer is not installed" >&2; return 1; }
    # The real folder: a link elsewhere may be closed to the account that runs it.
    (cd "$(dirname "$(readlink -f "$best/postgres" 2>/dev/null || echo "$best/postgres")")" && pwd)
}

# Runs a program as the account of the server: ours, or one without rights when we are root.
as_pg() {
    if [ -z "$PG_ACCOUNT" ]; then "$@"; else setpriv_or_su "$@"; fi
}

setpriv_or_su() {
    if command -v setpriv >/dev/null 2>&1; then
        setpriv --reuid "$PG_ACCOUNT" --regid "$(id -g "$PG_ACCOUNT")" --clear-groups "$@"
    else
        su -s /bin/sh "$PG_ACCOUNT" -c "$(printf '%q ' "$@")"
    fi
}

# In memory where 6 GB of it are free: each test makes and removes two thousand files, which ext4 is slow at. Else, or for what is larger,
# in FLATRENDER_TMP.
roomy() {
    local free=0 spare=0
    if [ -n "${FLATRENDER_TMP:-}" ]; then echo "$FLATRENDER_TMP"; return; fi
    free=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1) || free=0
    spare=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo 2>/dev/null) || spare=0
    if [ "${free:-0}" -gt 6000000 ] && [ "${spare:-0}" -gt 8000000 ]; then echo /dev/shm; else echo /tmp; fi
}

start_postgres() {
    local account bin port=0 try
    PG_ACCOUNT=
    if [ "$(id -u)" -eq 0 ]; then
        for account in flatrender postgres nobody; do
            id -u "$account" >/dev/null 2>&1 && PG_ACCOUNT=$account && break
        done
    fi
    bin=$(pg_bin) || return 1
    # Short: the path of a socket may have a hundred bytes.
    PG_HOME=$(mktemp -d "$(roomy)/fr-test.XXXXXX")
    chmod 711 "$PG_HOME"
    mkdir "$PG_HOME/data" "$PG_HOME/run"
    [ -z "$PG_ACCOUNT" ] || chown "$PG_ACCOUNT" "$PG_HOME/data" "$PG_HOME/run"
    PG_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s\n' "$PG_PASSWORD" >"$PG_HOME/password"
    [ -z "$PG_ACCOUNT" ] || chown "$PG_ACCOUNT" "$PG_HOME/password"
    (cd "$PG_HOME" && LC_ALL=C as_pg "$bin/initdb" --username=flatrender --auth=scram-sha-256 --encoding=UTF8 --locale=C \
        --no-sync --pwfile="$PG_HOME/password" -D "$PG_HOME/data") >"$PG_HOME/initdb.log" 2>&1 ||
        { cat "$PG_HOME/initdb.log" >&2; return 1; }
    for try in 1 2 3 4 5 6 7 8; do
        # Two runs side by side each take a port of their own; one that is taken after all is left for another.
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        launch_postgres "$bin" "$port" "$@" && break
        port=0
    done
    [ "$port" -ne 0 ] || { tail -n 5 "$PG_HOME/postgres.log" >&2; return 1; }
    export DATABASE_URL="postgres://flatrender:$PG_PASSWORD@127.0.0.1:$port/postgres"
}

launch_postgres() {
    local bin=$1 port=$2 tick
    shift 2
    (cd "$PG_HOME" && LC_ALL=C as_pg "$bin/postgres" -D "$PG_HOME/data" -k "$PG_HOME/run" -p "$port" \
        -c listen_addresses=127.0.0.1 -c max_connections=400 -c fsync=off -c synchronous_commit=off \
        -c full_page_writes=off -c shared_buffers=256MB "$@") >>"$PG_HOME/postgres.log" 2>&1 &
    for tick in $(seq 1 300); do
        sed -n 8p "$PG_HOME/data/postmaster.pid" 2>/dev/null | grep -q ready && return 0
        kill -0 $! 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

prefill_postgres() {
    local file name psql=psql
    [ ! -x "$(pg_bin)/psql" ] || psql=$(pg_bin)/psql
    {
        echo "create table _sqlx_migrations (version bigint primary key, description text not null,
            installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null,
            execution_time bigint not null);"
        for file in migrations/*.sql; do
            cat "$file"
            name=$(basename "$file" .sql)
            printf "\ninsert into public._sqlx_migrations values (%d, '%s', now(), true, '\\\\x%s', 0);\n" \
                "$((10#${name%%_*}))" "$(printf '%s' "${name#*_}" | tr _ ' ')" "$(shasum -a 384 "$file" | cut -d' ' -f1)"
        done
    } | "$psql" -X -q -1 -v ON_ERROR_STOP=1 "${DATABASE_URL%/*}/template1" >/dev/null
}

stop_postgres() {
    [ -n "$PG_HOME" ] || return 0
    local pid tick home=$PG_HOME
    PG_HOME=
    pid=$(sed -n 1p "$home/data/postmaster.pid" 2>/dev/null || true)
    if [ -n "$pid" ]; then
        # At once: nothing in it is worth keeping.
        kill -QUIT "$pid" 2>/dev/null || true
        for tick in $(seq 1 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    wait 2>/dev/null || true
    rm -rf "$home"
}
