# What the scripts of this folder have in common. To be sourced.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tree="$(cd "$here/../../.." && pwd)"
cache_of_all="${SIDER_CLIENTS_CACHE:-$HOME/.cache/sider-clients}"
export SDS_SERVER="${SDS_SERVER:-$tree/target/debug/sds-server}" SDS_AGENT="${SDS_AGENT:-$tree/target/debug/sds-agent}"

# skip REASON: says why nothing was tried, and ends well.
skip() {
  echo "skipped: $1"
  exit 0
}

need() {
  command -v "$1" >/dev/null || skip "it needs $1, which is not there"
}

build_programs() {
  if [[ ! -x "$SDS_SERVER" || ! -x "$SDS_AGENT" ]]; then
    (cd "$tree" && cargo build --locked --bins)
  fi
}

# start_server HTTP-PORT RAFT-PORT [flags]: a server of its own in $work, and waits until it leads. Sets `server`.
start_server() {
  "$SDS_SERVER" -dev -http "127.0.0.1:$1" -raft-bind "127.0.0.1:$2" -raft-id "s$1" "${@:3}" 2>"$work/server-$1.log" &
  server=$!
  for _ in $(seq 100); do
    if [[ "$(curl -s "127.0.0.1:$1/v1/status/leader")" == *:* ]]; then
      return
    fi
    sleep 0.1
  done
  cat "$work/server-$1.log"
  echo "the server did not start"
  exit 1
}

finish() {
  # Only what was started here.
  for pid in $(jobs -p); do
    kill "$pid" 2>/dev/null || true
  done
  wait 2>/dev/null || true
  rm -rf "$work"
}

work="$(mktemp -d)"
trap finish EXIT
