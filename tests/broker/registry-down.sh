#!/usr/bin/env bash
# Stops what registry-up.sh started in FOLDER: registry-down.sh FOLDER. With nothing running it does nothing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"

[ $# -ge 1 ] || die "usage: registry-down.sh FOLDER"
[ -d "$1" ] || exit 0
run=$(cd "$1" && pwd)
# Only what is surely ours is removed; a start that failed early leaves a folder without it.
if [ ! -e "$run/port" ]; then say "nothing of registry-up.sh in $run"; exit 0; fi
stop_in "$run" 0 # it keeps all in memory
rm -rf "$run"
