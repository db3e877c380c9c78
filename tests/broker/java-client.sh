#!/usr/bin/env bash
# Runs clients/JavaClient.java, which says what its arguments are: java-client.sh COMMAND ARGUMENT...
#
# What it takes comes from Maven Central; it is compiled where it has not been, for it and the list of what it takes name the folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"
need java

source=$here/clients/JavaClient.java
jars=$cache/java-client-$(cksum <"$here/clients/pom.xml" | cut -d' ' -f1)
fetch_once "$jars" "$here/clients/pom.xml" dependency:copy-dependencies
classes=$jars.$(cksum <"$source" | cut -d' ' -f1)
if [ ! -d "$classes" ]; then
  part=$(mktemp -d "$classes.XXXXXX")
  trap 'rm -rf "$part"' EXIT
  java -cp "$jars/*" org.eclipse.jdt.internal.compiler.batch.Main -17 -nowarn -d "$part" -cp "$(printf '%s:' "$jars"/*.jar)" "$source" ||
    die "cannot compile $source"
  mv -T "$part" "$classes" 2>/dev/null || rm -rf "$part" # somebody else was quicker
fi
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx128m -cp "$classes:$jars/*" JavaClient "$@"
