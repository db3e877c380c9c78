#!/usr/bin/env bash
# Registers every schema that topics.tsv names, with rpk, for the values of its topic: subject <topic>-value.
# A schema that is there already keeps its version. TOPIC_PREFIX and RPK are as for topics.sh, except that the rpk which
# RPK runs must see this machine's files; which registry, rpk takes from its profile or from RPK_REGISTRY_HOSTS.
# EVENT_SCHEMA is the file of your own events' schema, in place of the worked example's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
schemas=$here/../schemas
read -ra rpk <<<"${RPK:-rpk}"

grep -v '^#' "$here/topics.tsv" | while IFS=$'\t' read -r topic _ schema _; do
  [ "$schema" != - ] || continue
  file=$schemas/$schema.avsc
  if [ "$schema" = questionnaire-event ]; then file=${EVENT_SCHEMA:-$file}; fi
  [ -s "$file" ] || { echo "schemas.sh: no $file" >&2; exit 1; }
  "${rpk[@]}" registry schema create "${TOPIC_PREFIX:-}$topic-value" --schema "$file" </dev/null
done
