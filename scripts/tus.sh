#!/usr/bin/env bash
# A client of tus that we did not write uploads a gibibyte over a wire that is cut ten times. Takes Python 3 and its package index, some
# 5 GiB of disk, a release build and a few minutes; the client is kept in target/tus.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true PATH="$HOME/.cargo/bin:$PATH"

home="${CARGO_TARGET_DIR:-target}/tus"
if [ ! -x "$home/bin/python3" ] || ! "$home/bin/python3" -c 'import tusclient' 2>/dev/null; then
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check tuspy==1.1.0
fi
export FLATRENDER_TUS_PYTHON="$PWD/$home/bin/python3"
case "$home" in /*) FLATRENDER_TUS_PYTHON="$home/bin/python3" ;; esac

# Optimised: without that the programs themselves take more than the memory that is allowed.
cargo nextest run --locked --cargo-profile release --profile chaos -p flatrender-api --test journey --run-ignored only --no-capture -E 'test(/^uploads::f_tus/)'
