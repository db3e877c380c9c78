#!/usr/bin/env bash
# Runs clients/JavaClient.java, which documents its arguments: java-client.sh COMMAND ARGUMENT...
#
# Its dependencies come from Maven Central. The folders of jars and classes are named by checksums of pom.xml and of the
# source, so a change of either fetches or compiles again.
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
  mv -T "$part" "$classes" 2>/dev/null || rm -rf "$part" # another process compiled it first
fi
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx128m -cp "$classes:$jars/*" JavaClient "$@"
