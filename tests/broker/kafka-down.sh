#!/usr/bin/env bash
# Stops the Kafka that kafka-up.sh started in FOLDER. Does nothing if none is running.
#
#   kafka-down.sh FOLDER            stops every node and removes the data
#   kafka-down.sh FOLDER 2          stops node 2 with SIGTERM; kafka-up.sh FOLDER starts it again
#   kafka-down.sh FOLDER 2 --kill   kills node 2 with SIGKILL
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"

[ $# -ge 1 ] || die "usage: kafka-down.sh FOLDER [NODE [--kill]]"
[ -d "$1" ] || exit 0
run=$(cd "$1" && pwd)

if [ $# -gt 1 ]; then
  [ -d "$run/node$2" ] || die "no node '$2' in $run"
  seconds=10
  if [ "${3:-}" = --kill ]; then seconds=0; fi
  stop_in "$run/node$2" "$seconds"
  exit 0
fi

# Removes a folder only if kafka-up.sh made it; a start that failed early has no `ports` file.
if [ ! -e "$run/ports" ]; then say "$run is not a folder of kafka-up.sh: nothing removed"; exit 0; fi

# The data are removed, so nodes can be killed, except for the one that writes the class archive when it shuts down.
recorded=$run/node1/classes.jsa
archive=$(cat "$run/node1/archive" 2>/dev/null || true)
if [ -n "$archive" ] && [ ! -e "$archive" ]; then
  stop_in "$run/node1" 20
  # A rename replaces the file atomically, so concurrent scripts cannot leave a partial archive.
  if [ -s "$recorded" ] && cp "$recorded" "$archive.$$"; then mv "$archive.$$" "$archive"; fi
fi
for folder in "$run"/node*; do stop_in "$folder" 0; done
rm -rf "$run"
