#!/usr/bin/env bash
# Runs a command with a real Kafka and a real registry, and stops them when it ends: with-broker.sh COMMAND...
#
# The command gets their addresses in FORETELL_TEST_BROKERS and FORETELL_TEST_REGISTRY. If one of these is set already (to
# your own Redpanda, for example), that server is used and none is started. FORETELL_TEST_KAFKA is the folder by which
# kafka-down.sh and kafka-up.sh kill and restart a node. NODES=3 starts a cluster of three nodes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"
[ $# -ge 1 ] || die "usage: with-broker.sh COMMAND..."

# Data are in memory if there is room: a disk that stalls for seconds under a build's writes stalls Kafka as long, which is
# not under test. Set TMPDIR to use another folder.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
  room=$(df --output=avail -k /dev/shm | tail -n 1)
  if [ "$room" -ge $((6 * 1024 * 1024)) ]; then export TMPDIR=/dev/shm; fi
fi
run=$(mktemp -d)
stop() {
  local code=$?
  trap - EXIT INT TERM HUP
  # Waits for a registry that is still starting, which would otherwise outlive its folder.
  if [ -n "${registry:-}" ]; then wait "$registry" || true; fi
  if [ "$code" != 0 ]; then
    for log in "$run"/kafka/node*/log "$run"/registry/log; do
      if [ -s "$log" ]; then say "the end of $log:"; tail -n 10 "$log" >&2; fi
    done
  fi
  "$here/kafka-down.sh" "$run/kafka" 2>/dev/null || true
  "$here/registry-down.sh" "$run/registry" 2>/dev/null || true
  rm -rf "$run"
  exit "$code"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

# The two start concurrently.
if [ -z "${FORETELL_TEST_REGISTRY:-}" ]; then
  "$here/registry-up.sh" "$run/registry" >"$run/registry.env" &
  registry=$!
fi
if [ -z "${FORETELL_TEST_BROKERS:-}" ]; then
  "$here/kafka-up.sh" "$run/kafka" "${NODES:-1}" >"$run/kafka.env"
  # shellcheck source=/dev/null
  . "$run/kafka.env"
  export FORETELL_TEST_BROKERS=$KAFKA_BOOTSTRAP FORETELL_TEST_KAFKA=$run/kafka
fi
if [ -n "${registry:-}" ]; then
  wait "$registry"
  # shellcheck source=/dev/null
  . "$run/registry.env"
  export FORETELL_TEST_REGISTRY=$REGISTRY_URL
fi
"$@"
