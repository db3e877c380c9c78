#!/usr/bin/env bash
# Registers every version of every schema that topics.tsv names, oldest first, with rpk, for the values of its topic:
# subject <topic>-value. A schema that is registered keeps its version. TOPIC_PREFIX and RPK are as for topics.sh, but the rpk in RPK must have
# access to this machine's files. rpk takes the registry from its profile or from RPK_REGISTRY_HOSTS.
# EVENT_SCHEMA is the file of your event schema, in place of the worked example's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
schemas=$here/../schemas
read -ra rpk <<<"${RPK:-rpk}"

grep -v '^#' "$here/topics.tsv" | while IFS=$'\t' read -r topic _ schema _; do
  [ "$schema" != - ] || continue
  files=$(printf '%s\n' "$schemas/$schema"/v*.avsc | sort -V)
  if [ "$schema" = questionnaire-event ]; then files=${EVENT_SCHEMA:-$files}; fi
  while read -r file; do
    [ -s "$file" ] || { echo "schemas.sh: no $file" >&2; exit 1; }
    "${rpk[@]}" registry schema create "${TOPIC_PREFIX:-}$topic-value" --schema "$file" </dev/null
  done <<<"$files"
done
