#!/usr/bin/env bash
# Stops the registry that registry-up.sh started in FOLDER: registry-down.sh FOLDER. Does nothing if none is running.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"

[ $# -ge 1 ] || die "usage: registry-down.sh FOLDER"
[ -d "$1" ] || exit 0
run=$(cd "$1" && pwd)
# Removes a folder only if registry-up.sh made it; a start that failed early has no `port` file.
if [ ! -e "$run/port" ]; then say "$run is not a folder of registry-up.sh: nothing removed"; exit 0; fi
stop_in "$run" 0 # its data are in memory
rm -rf "$run"
