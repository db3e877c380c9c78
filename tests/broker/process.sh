# Functions that the scripts beside it source: servers that outlive the script that started them, free ports, and downloads
# from Maven Central.
#
# Each server has a folder with its `pid`, `log`, settings and data. The scripts identify a server by that folder.
# shellcheck shell=bash

# Downloaded jars are kept here between runs.
# shellcheck disable=SC2034 # the scripts that source this use it
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/foretell/broker

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "cannot find '$1': run .ci/setup broker"; }

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ports to choose from, at random: below Linux's ephemeral ports (32768 and up). FORETELL_TEST_PORTS="FIRST COUNT" sets
# other ones, which are tried in order.
read -r first_port port_count <<<"${FORETELL_TEST_PORTS:-20000 10000}"
port_locks=/tmp/foretell-ports-$(id -u)

# take_ports COUNT: sets the array `taken` to COUNT distinct free ports. Each is locked, against other scripts, until this
# script and the processes that it starts end. Other programs do not take the lock: see port_was_taken.
take_ports() {
  local port lock tries=0
  taken=()
  mkdir -p "$port_locks"
  while [ "${#taken[@]}" -lt "$1" ]; do
    port=$((first_port + (RANDOM * 32768 + RANDOM) % port_count))
    if [ -n "${FORETELL_TEST_PORTS:-}" ]; then port=$((first_port + tries)); fi
    tries=$((tries + 1))
    if [ "$tries" -gt "$port_count" ] || [ "$tries" -gt 1000 ]; then die "cannot find $1 free ports among the $port_count from $first_port on"; fi
    exec {lock}>"$port_locks/$port"
    if flock -n "$lock" && ! port_is_open "$port"; then taken+=("$port"); else exec {lock}>&-; fi
  done
}

# port_was_taken LOG...: whether one of the servers with these logs ended because its port was in use.
port_was_taken() { grep -Eqs 'Address already in use|BindException|seems to be in use' "$@"; }

# is_running PID: false for a zombie too, because a container without an init never reaps it.
is_running() {
  local state
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null)
  [ -n "$state" ] && [ "$state" != Z ]
}

# pid_of FOLDER: prints the pid of the server in FOLDER, or fails if it does not run. The folder among its arguments
# distinguishes it from another process that has the same pid later.
pid_of() {
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && is_running "$pid" || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -Fxq -e "-Dforetell.folder=$1" || return 1
  echo "$pid"
}

# start_in FOLDER JAVA-ARGUMENT...: starts a server in its own session, so that Ctrl-C does not reach it.
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

# wait_until FOLDER COMMAND...: repeats COMMAND until it succeeds; fails after two minutes, or when the server in FOLDER ends.
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

# stop_in FOLDER SECONDS: stops the server with SIGTERM, then with SIGKILL after SECONDS; 0 kills it at once.
stop_in() {
  local pid tenths=$(($2 * 10))
  pid=$(pid_of "$1") || return 0
  [ "$tenths" = 0 ] || kill -TERM "$pid" 2>/dev/null || true
  while [ "$tenths" -gt 0 ] && is_running "$pid"; do sleep 0.1; tenths=$((tenths - 1)); done
  if is_running "$pid"; then kill -KILL "$pid" 2>/dev/null || true; fi
  while is_running "$pid"; do sleep 0.05; done
  rm -f "$1/pid"
}

# fetch_once FOLDER POM GOAL: runs Maven's GOAL, which writes into ${fetch.folder}, and keeps the result as FOLDER. Safe to
# call from several scripts at once.
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
    for _ in 1 2; do # retries once, for network errors
      if mvn -B -q -ntp -f "$pom" "-Dfetch.folder=$folder.part" "$goal" >"$folder.log" 2>&1 </dev/null; then
        mv "$folder.part" "$folder"
        exit 0
      fi
    done
    tail -n 30 "$folder.log" >&2
    exit 1
  ) 9>"$folder.lock" || die "Maven could not fetch $(basename "$folder")"
}
