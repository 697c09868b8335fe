#!/usr/bin/env bash
# The long form of the fault suites on real processes: the engine's faults, an invariant checker after each, and 500 faults over a
# farm of four nodes. Meant to take less than half an hour on two cores; ends with a table, and not with 0 if anything is violated.
#
#   scripts/chaos.sh [filter]       only the faults whose tests contain the filter, such as f03, or f_500 for the farm
#   scripts/chaos.sh fleet          two hundred nodes and two hundred renders by the stand-in, what they cost the database, and how soon stills
#                                   are answered with that are there
#   scripts/chaos.sh fuzz           archives, pictures and sounds harmed at random for an hour or two: FLATRENDER_FUZZ_TIMES=2000
#   scripts/chaos.sh races          sixty-four at once for the last one of something, a thousand times, at the database and over HTTP
#   scripts/tus.sh                  a gibibyte over a wire that is cut, by a client of others; part of the whole
#   FLATRENDER_CHAOS=soak           the longest form: F6 and F8 for ten minutes, F35 with a million jobs and then for hours
#   FLATRENDER_SOAK_JOBS=50000      how many F35 burns down in that form, and FLATRENDER_SOAK_SECONDS=600 how long it bears them
#   FLATRENDER_CHAOS_SEED=123       repeats what was random
#   FLATRENDER_CHAOS_LOG=file       keeps what processes and servers say
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

# shellcheck source=throwaway-postgres.sh
. scripts/throwaway-postgres.sh

TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/fr.XXXXXX")
chmod 755 "$TMPDIR"
trap 'stop_postgres; rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export TMPDIR FLATRENDER_CHAOS="${FLATRENDER_CHAOS:-long}" FLATRENDER_CHAOS_REPORT="$TMPDIR/report"
: >"$FLATRENDER_CHAOS_REPORT"

began=$SECONDS code=0
# All of it, as the tests have it: a part by itself is compiled with other features, and so anew.
build() { cargo build --locked --quiet --workspace --all-targets; }
# Alone on its server: it counts what the whole of it writes.
fleet() {
    local ended=0
    build
    start_postgres
    cargo nextest run --locked --profile chaos --workspace --run-ignored only --no-capture -E 'binary(http) and test(/^fleet::/)' || ended=$?
    stop_postgres
    return "$ended"
}
if [ "${1:-}" = fleet ]; then fleet; exit; fi
# Millions of strangers' files, of those that the everyday test makes by the thousand.
fuzz() {
    FLATRENDER_FUZZ_TIMES="${FLATRENDER_FUZZ_TIMES:-2000}" cargo nextest run --locked --profile soak -p flatrender-activities --test media \
        --no-capture -E 'test(/_harmed_|whatever_is_taken|that_are_harmed/)'
}
if [ "${1:-}" = fuzz ]; then fuzz; exit; fi
races() {
    start_postgres
    # One after the other: each has sixty-four connections, and takes as long as it does.
    FLATRENDER_ROUNDS="${FLATRENDER_ROUNDS:-1000}" cargo nextest run --locked --workspace --profile soak --retries 0 --no-fail-fast \
        -E '(binary(credits) or binary(payments)) and test(/^races::/)'
}
if [ "${1:-}" = races ]; then races; exit; fi
build
cargo nextest run --locked --profile "$([ "$FLATRENDER_CHAOS" = soak ] && echo soak || echo chaos)" --workspace --run-ignored all --no-fail-fast \
    -E "(binary(chaos) and not test(=program::program) or binary(journey) and test(/^storm::f_/)) and test(/${1:-f}/)" || code=$?

[ $# -gt 0 ] || fleet || code=$?
[ $# -gt 0 ] || scripts/tus.sh || code=$?

printf '\n%-11s %8s  %-7s %7s %7s  %s\n' fault injected result seed seconds checked
sort -t"$(printf '\t')" -k1.2n "$FLATRENDER_CHAOS_REPORT" |
    awk -F'\t' '{ printf "%-11s %8s  %-7s %7s %7s  %s%s\n", $1, $2, $4, $5, $6, $3, $7 == "" ? "" : " [" $7 "]" }'
if grep -q "$(printf '\t')FAILED$(printf '\t')" "$FLATRENDER_CHAOS_REPORT"; then code=1; fi
printf '\n%s scenarios in %s s on commit %s, one host: %s\n' "$(wc -l <"$FLATRENDER_CHAOS_REPORT")" "$((SECONDS - began))" \
    "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$([ "$code" -eq 0 ] && echo 'nothing was violated' || echo 'FAILED')"
exit "$code"
