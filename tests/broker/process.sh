# Sourced by the scripts beside it: processes that outlive the script that started them, and files that Maven brings once.
#
# A server lives in a folder of its own: `pid`, `log`, its settings and its data. The folder is how the scripts name it.
# shellcheck shell=bash

# Where the jars stay between runs.
# shellcheck disable=SC2034 # the scripts that source this use it
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/foretell/broker

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "no '$1' here: run .ci/setup broker"; }

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the ports that Linux hands out by itself (32768 and up). FORETELL_TEST_PORTS="FIRST COUNT" says which instead, to be
# tried in this order.
read -r first_port port_count <<<"${FORETELL_TEST_PORTS:-20000 10000}"
port_locks=/tmp/foretell-ports-$(id -u)

# take_ports COUNT: so many free ports in the array `taken`, no two the same. Each is locked until this script ends, and what
# it starts after that: another script takes others. A stranger may still be quicker, see port_was_taken.
take_ports() {
  local port lock tries=0
  taken=()
  mkdir -p "$port_locks"
  while [ "${#taken[@]}" -lt "$1" ]; do
    port=$((first_port + (RANDOM * 32768 + RANDOM) % port_count))
    if [ -n "${FORETELL_TEST_PORTS:-}" ]; then port=$((first_port + tries)); fi
    tries=$((tries + 1))
    if [ "$tries" -gt "$port_count" ] || [ "$tries" -gt 1000 ]; then die "found no $1 free ports in $port_count from $first_port on"; fi
    exec {lock}>"$port_locks/$port"
    if flock -n "$lock" && ! port_is_open "$port"; then taken+=("$port"); else exec {lock}>&-; fi
  done
}

# Whether one of the servers with these logs ended since somebody else had its port.
port_was_taken() { grep -Eqs 'Address already in use|BindException|seems to be in use' "$@"; }

# A process that is dead but not yet reaped counts as gone: a container without an init never reaps it.
is_running() {
  local state
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null)
  [ -n "$state" ] && [ "$state" != Z ]
}

# pid_of FOLDER: the pid of the server in FOLDER, if it runs. The mark among its arguments tells it from a
# stranger that was given the same pid later.
pid_of() {
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && is_running "$pid" || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -Fxq -e "-Dforetell.folder=$1" || return 1
  echo "$pid"
}

# start_in FOLDER JAVA-ARGUMENT...: a session of its own keeps the server clear of the terminal's Ctrl-C.
start_in() {
  local folder=$1
  shift
  (
    cd "$folder" || exit
    exec setsid java "-Dforetell.folder=$folder" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "$@" >log 2>&1 </dev/null
  ) &
  echo $! >"$folder/pid"
  disown
}

# wait_until FOLDER COMMAND...: for at most two minutes, and no longer than the server in FOLDER lives; 1 if that was in vain.
wait_until() {
  local folder=$1 end=$((SECONDS + 120))
  shift
  until "$@"; do
    if ! is_running "$(cat "$folder/pid")"; then
      tail -n 30 "$folder/log" >&2
      say "the server in $folder ended before it was ready"
      return 1
    fi
    if [ "$SECONDS" -ge "$end" ]; then
      tail -n 30 "$folder/log" >&2
      say "the server in $folder was not ready after two minutes"
      return 1
    fi
    sleep 0.1
  done
}

# stop_in FOLDER SECONDS: asks it to end, and kills it when the seconds have passed; 0 kills at once.
stop_in() {
  local pid tenths=$(($2 * 10))
  pid=$(pid_of "$1") || return 0
  [ "$tenths" = 0 ] || kill -TERM "$pid" 2>/dev/null || true
  while [ "$tenths" -gt 0 ] && is_running "$pid"; do sleep 0.1; tenths=$((tenths - 1)); done
  if is_running "$pid"; then kill -KILL "$pid" 2>/dev/null || true; fi
  while is_running "$pid"; do sleep 0.05; done
  rm -f "$1/pid"
}

# fetch_once FOLDER POM GOAL: what Maven's GOAL writes into ${fetch.folder}, kept in FOLDER. Several may ask at the same time.
fetch_once() {
  local folder=$1 pom=$2 goal=$3
  [ ! -d "$folder" ] || return 0
  need mvn
  mkdir -p "$(dirname "$folder")"
  (
    flock 9
    [ ! -d "$folder" ] || exit 0
    say "fetching $(basename "$folder") from Maven Central"
    rm -rf "$folder.part"
    for _ in 1 2; do # the network deserves a second chance
      if mvn -B -q -ntp -f "$pom" "-Dfetch.folder=$folder.part" "$goal" >"$folder.log" 2>&1 </dev/null; then
        mv "$folder.part" "$folder"
        exit 0
      fi
    done
    tail -n 30 "$folder.log" >&2
    exit 1
  ) 9>"$folder.lock" || die "Maven could not fetch $(basename "$folder")"
}
