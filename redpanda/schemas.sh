#!/usr/bin/env bash
# Registers every version of every schema in topics.tsv with rpk, oldest first, under the subject <topic>-value. A schema
# that is registered already keeps its version.
#
#   TOPIC_PREFIX, RPK  as for topics.sh; RPK must run an rpk that can read this machine's files
#   EVENT_SCHEMA       file of your event schema, in place of the worked example's
#
# rpk takes the registry's address from its profile or from RPK_REGISTRY_HOSTS.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
schemas=$here/../schemas
read -ra rpk <<<"${RPK:-rpk}"

grep -v '^#' "$here/topics.tsv" | while IFS=$'\t' read -r topic _ schema _; do
  [ "$schema" != - ] || continue
  files=$(printf '%s\n' "$schemas/$schema"/v*.avsc | sort -V)
  if [ "$schema" = questionnaire-event ]; then files=${EVENT_SCHEMA:-$files}; fi
  while read -r file; do
    [ -s "$file" ] || { echo "schemas.sh: cannot find $file" >&2; exit 1; }
    "${rpk[@]}" registry schema create "${TOPIC_PREFIX:-}$topic-value" --schema "$file" </dev/null
  done <<<"$files"
done
