#!/usr/bin/env bash
# Starts Apache Kafka on free loopback ports: kafka-up.sh FOLDER [NODES]
#
# FOLDER holds settings, data and logs. NODES is 1 (default) or 3, and is kept for later calls. Called again, it starts the
# nodes that are down, on the same ports and data. Prints KAFKA_BOOTSTRAP for `eval`. kafka-down.sh stops it.
#
# Besides its plaintext listener, each node has one for user names and passwords over TLS (SASL_SSL) and one for client
# certificates (mTLS). FOLDER/secure has the files for clients: `sasl_ssl` and `mtls` (host:port), ca.pem, client.pem,
# client.key, and `password`, that of the user alice.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/broker/process.sh
. "$here/process.sh"
need java
need openssl

[ $# -ge 1 ] || die "usage: kafka-up.sh FOLDER [NODES]"
mkdir -p "$1"
run=$(cd "$1" && pwd)
nodes=${2:-1}

version=$(sed -n 's/.*<kafka.version>\(.*\)<.*/\1/p' "$here/kafka/pom.xml")
jars=$cache/kafka-$version
fetch_once "$jars" "$here/kafka/pom.xml" dependency:copy-dependencies
# Sorted, because the class archive (AppCDS) is valid for one class path and one Java version only.
class_path=$(printf '%s\n' "$jars"/*.jar | LC_ALL=C sort | paste -sd:)
archive=$jars.$(java -version 2>&1 | cksum | cut -d' ' -f1).jsa

exec 8>"$run/lock"
flock 8

case $nodes in 1 | 3) ;; *) die "NODES is 1 or 3, not '$nodes'" ;; esac

# Writes `ports`, one line a node: the ports of the plaintext, controller, SASL_SSL and mTLS listeners.
choose_ports() {
  take_ports $((4 * nodes))
  for ((i = 0; i < nodes; i++)); do echo "${taken[@]:4*i:4}"; done >"$run/ports.part"
  mv "$run/ports.part" "$run/ports"
  # Kafka wants 16 random bytes in URL-safe base64; a leading letter keeps it from looking like an option.
  printf 'k%s\n' "$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c2-22)" >"$run/cluster-id"
}
read_ports() {
  local port controller by_password by_certificate sasl_ssl='' mtls=''
  bootstrap='' voters='' nodes=0
  while read -r port controller by_password by_certificate; do
    nodes=$((nodes + 1))
    ports[nodes]=$port controllers[nodes]=$controller
    by_passwords[nodes]=$by_password by_certificates[nodes]=$by_certificate
    sasl_ssl+=${sasl_ssl:+,}127.0.0.1:$by_password
    mtls+=${mtls:+,}127.0.0.1:$by_certificate
    bootstrap+=${bootstrap:+,}127.0.0.1:$port
    voters+=${voters:+,}$nodes@127.0.0.1:$controller
  done <"$run/ports"
  echo "$sasl_ssl" >"$secure/sasl_ssl"
  echo "$mtls" >"$secure/mtls"
}

# A test certificate authority, and the certificates that it signs: the brokers' and a client's, each with its key.
secure=$run/secure
signed() {
  local name=$1 extension=$2
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$name.key" -out "$name.csr" -subj "/CN=$name"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile <(echo "$extension") -out "$name.pem"
}
certify() (
  set -e
  cd "$1"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -keyout ca.key -out ca.pem -subj /CN=foretell-tests
  signed broker 'subjectAltName = IP:127.0.0.1, DNS:localhost'
  signed client 'extendedKeyUsage = clientAuth'
  cat broker.key broker.pem >keystore.pem
  printf 'a secret of alice\n' >password
)
if [ ! -e "$secure" ]; then
  rm -rf "$secure.part"
  mkdir "$secure.part"
  certify "$secure.part" >"$run/certify.log" 2>&1 || { tail -n 10 "$run/certify.log" >&2; die "could not make certificates"; }
  mv "$secure.part" "$secure"
fi

settings() {
  local node=$1 folder=$2 copies=1 in_sync=1
  if [ "$nodes" = 3 ]; then copies=3 in_sync=2; fi
  cat <<END
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:${ports[node]},CONTROLLER://127.0.0.1:${controllers[node]},PASSWORD://127.0.0.1:${by_passwords[node]},CERTIFICATE://127.0.0.1:${by_certificates[node]}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports[node]},PASSWORD://127.0.0.1:${by_passwords[node]},CERTIFICATE://127.0.0.1:${by_certificates[node]}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORD:SASL_SSL,CERTIFICATE:SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=$secure/keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location=$secure/ca.pem
listener.name.certificate.ssl.client.auth=required
listener.name.password.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN,OAUTHBEARER
# Accepts unsigned tokens, Kafka's default, and closes a connection when its token expires.
listener.name.password.oauthbearer.connections.max.reauth.ms=3600000
listener.name.password.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.password.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.password.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="$(cat "$secure/password")";
log.dirs=$folder/data
# A topic that was not created explicitly is an error that a test must see.
auto.create.topics.enable=false
default.replication.factor=$copies
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=4
# Little memory and few threads.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=8388608
# Short delays: to form a group, to end the session and transaction of a crashed member, to compact, to replace a node.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.initial.task.delay.ms=500
log.cleaner.backoff.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
replica.lag.time.max.ms=5000
controlled.shutdown.max.retries=1
END
}

java_options=(-Xms64m -Xmx384m -cp "$class_path"
  -Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info)
# The class archive halves the CPU time of a start. The first node that shuts down writes it; kafka-down.sh keeps it.
share=() record=()
if [ -e "$archive" ]; then share=("-XX:SharedArchiveFile=$archive"); fi

format() {
  local folder=$run/node$1
  mkdir -p "$folder"
  settings "$1" "$folder" >"$folder/settings"
  [ -e "$folder/data/meta.properties" ] && return 0
  java "${share[@]}" "${java_options[@]}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
    -t "$(cat "$run/cluster-id")" -c "$folder/settings" \
    --add-scram "SCRAM-SHA-256=[name=alice,password=$(cat "$secure/password")]" >"$folder/format.log" 2>&1 </dev/null && return 0
  tail -n 30 "$folder/format.log" >&2
  return 1
}

is_ready() { grep -qs 'Kafka Server started' "$1/log" && port_is_open "$2"; }

# Starts the nodes that are down; fails if one of them does not become ready.
start_nodes() {
  local down=() formats=() i pid folder
  for ((i = 1; i <= nodes; i++)); do pid_of "$run/node$i" >/dev/null || down+=("$i"); done
  for i in "${down[@]}"; do format "$i" & formats+=($!); done
  for pid in "${formats[@]}"; do wait "$pid" || die "could not format the storage"; done
  for i in "${down[@]}"; do
    folder=$run/node$i
    if [ "$i" = 1 ] && [ ! -e "$archive" ]; then
      record=("-XX:ArchiveClassesAtExit=$folder/classes.jsa")
      echo "$archive" >"$folder/archive"
    fi
    start_in "$folder" "${share[@]}" "${record[@]}" "${java_options[@]}" kafka.Kafka "$folder/settings" 8>&-
    record=()
  done
  for ((i = 1; i <= nodes; i++)); do
    wait_until "$run/node$i" is_ready "$run/node$i" "${ports[i]}" || return 1
  done
}

is_new=
for attempt in 1 2 3; do
  if [ ! -e "$run/ports" ]; then is_new=1; choose_ports; fi
  read_ports
  start_nodes && break
  # A cluster that had started before keeps its ports, because clients use them.
  if [ -z "$is_new" ] || [ "$attempt" = 3 ] || ! port_was_taken "$run"/node*/log; then die "Kafka did not start"; fi
  say "another process took a port first: trying other ports"
  for folder in "$run"/node*; do stop_in "$folder" 0; done
  rm -rf "$run"/node* "$run/ports"
done
printf "KAFKA_BOOTSTRAP='%s'\n" "$bootstrap"
