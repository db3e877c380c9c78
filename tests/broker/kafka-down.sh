#!/usr/bin/env bash
# Stops what kafka-up.sh started in FOLDER. With nothing running it does nothing.
#
#   kafka-down.sh FOLDER            every node, and the data go too
#   kafka-down.sh FOLDER 2          node 2, in an orderly way; kafka-up.sh FOLDER starts it again
#   kafka-down.sh FOLDER 2 --kill   node 2, as a power cut would (SIGKILL)
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

# Only what is surely ours is removed; a start that failed early leaves a folder without it.
if [ ! -e "$run/ports" ]; then say "nothing of kafka-up.sh in $run"; exit 0; fi

# The data go, so nobody need end in an orderly way, but for the node that writes the archive of classes at its end.
recorded=$run/node1/classes.jsa
archive=$(cat "$run/node1/archive" 2>/dev/null || true)
if [ -n "$archive" ] && [ ! -e "$archive" ]; then
  stop_in "$run/node1" 20
  # Of several that made one, the first wins; a rename replaces a file in one step.
  if [ -s "$recorded" ] && cp "$recorded" "$archive.$$"; then mv "$archive.$$" "$archive"; fi
fi
for folder in "$run"/node*; do stop_in "$folder" 0; done
rm -rf "$run"
