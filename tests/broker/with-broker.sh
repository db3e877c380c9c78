#!/usr/bin/env bash
# Runs a command with a real Kafka and a real registry, and stops them whatever happens: with-broker.sh COMMAND...
#
# The command finds them in FORETELL_TEST_BROKERS and FORETELL_TEST_REGISTRY; what is set already (your own Redpanda, say)
# is used as it is. FORETELL_TEST_KAFKA is the folder by which kafka-down.sh and kafka-up.sh kill and restart a node.
# NODES=3 makes it a cluster.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"
[ $# -ge 1 ] || die "usage: with-broker.sh COMMAND..."

# In memory, where there is room: a disk that stalls for seconds under a fresh build's writes makes a Kafka that is away
# for as long, and that is not what is tested. TMPDIR says otherwise.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
  room=$(df --output=avail -k /dev/shm | tail -n 1)
  if [ "$room" -ge $((6 * 1024 * 1024)) ]; then export TMPDIR=/dev/shm; fi
fi
run=$(mktemp -d)
stop() {
  local code=$?
  trap - EXIT INT TERM HUP
  # A registry that is still starting would outlive its folder.
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

# The two start side by side.
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
