#!/usr/bin/env bash
# Starts a schema registry that speaks Confluent's protocol on a free loopback port: registry-up.sh FOLDER
#
# It is Apicurio Registry, in memory, with the compatibility level BACKWARD, the default of Confluent's and Redpanda's.
# Called again, it leaves a running one alone. Prints REGISTRY_URL for `eval`; the URL has a path. registry-down.sh stops it.
# Known difference: with this version (the last for Java 17) a subject's own NONE does not override the global level.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"
need java
need curl

[ $# -ge 1 ] || die "usage: registry-up.sh FOLDER"
mkdir -p "$1"
run=$(cd "$1" && pwd)

version=$(sed -n 's/.*<apicurio.version>\(.*\)<.*/\1/p' "$here/registry/pom.xml")
app=$cache/apicurio-$version
fetch_once "$app" "$here/registry/pom.xml" dependency:unpack
jar=$(find "$app" -maxdepth 1 -name '*-runner.jar' | head -n 1)
[ -n "$jar" ] || die "no runnable jar in $app"

exec 8>"$run/lock"
flock 8
answers() { curl -fs -m 5 -o "$run/answer" "$url/subjects"; }
address() { url=http://127.0.0.1:$(cat "$run/port")/apis/ccompat/v7; }
for attempt in 1 2 3; do
  if [ ! -e "$run/port" ]; then take_ports 1; echo "${taken[0]}" >"$run/port"; fi
  address
  if pid_of "$run" >/dev/null; then break; fi
  start_in "$run" -Xmx384m -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$(cat "$run/port")" \
    -Dquarkus.log.level=WARN -jar "$jar" 8>&-
  if wait_until "$run" answers; then
    curl -fsS -m 10 -o "$run/answer" -X PUT -H 'Content-Type: application/vnd.schemaregistry.v1+json' \
      -d '{"compatibility": "BACKWARD"}' "$url/config" || die "could not set the level"
    break
  fi
  if [ "$attempt" = 3 ] || ! port_was_taken "$run/log"; then die "the registry did not start"; fi
  say "another process took a port first: trying another port"
  stop_in "$run" 0
  rm -f "$run/port"
done
printf "REGISTRY_URL='%s'\n" "$url"
