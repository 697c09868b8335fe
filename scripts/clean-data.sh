#!/usr/bin/env bash
# Removes a data folder of the platform, and its database where that lives elsewhere. The platform has to be stopped.
set -euo pipefail
dir=${1:?which data folder?}
[ -d "$dir" ] || exit 0
[ ! -e "$dir/server.json" ] || { echo "error: the platform may still run on $dir: stop it first" >&2; exit 1; }
[ -f "$dir/lock" ] || { echo "error: $dir is no data folder of the platform" >&2; exit 1; }
if [ -L "$dir/postgres" ]; then
    home=$(readlink "$dir/postgres")
    case $home in
        /var/lib/flatrender/clusters/*) rm -rf -- "$home" ;;
    esac
fi
rm -rf -- "$dir"
