#!/usr/bin/env bash
# Creates the topics of topics.tsv with rpk; existing topics are not changed.
#
#   PARTITIONS    of the topics that scale with the number of instances (6)
#   REPLICAS      of every topic; odd (-1: the cluster's default_topic_replications)
#   TOPIC_PREFIX  prefix of every name, as `topics.prefix` in foretell.toml (none)
#   RPK           the command to run (rpk), for instance RPK='docker compose -f deploy/compose.yaml exec -T redpanda rpk'
#
# rpk takes the cluster and the credentials from its profile, or from RPK_BROKERS and similar variables.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra rpk <<<"${RPK:-rpk}"

grep -v '^#' "$here/topics.tsv" | while IFS=$'\t' read -r name partitions _ settings; do
  if [ "$partitions" = P ]; then partitions=${PARTITIONS:-6}; fi
  options=()
  for setting in $settings; do options+=(--topic-config "$setting"); done
  "${rpk[@]}" topic create "${TOPIC_PREFIX:-}$name" --if-not-exists \
    --partitions "$partitions" --replicas "${REPLICAS:--1}" "${options[@]}" </dev/null
done
