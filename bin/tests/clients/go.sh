#!/usr/bin/env bash
# Runs the tests of Consul's own Go client (an ordinary Go module) against this tree's programs.
#
#   bin/tests/clients/go.sh                    all tests of go/tests.txt, compared with what is expected there
#   bin/tests/clients/go.sh --times 3          the same so often; a test counts if it passes each time
#   bin/tests/clients/go.sh --update           writes what passed into go/tests.txt
#   bin/tests/clients/go.sh TestAPI_AgentHost  one test, with its output
#
# SDS_SERVER and SDS_AGENT name the programs (target/debug/…, built if they are not there), SIDER_CLIENTS_CACHE the folder
# in which the test binary is kept (~/.cache/sider-clients). Without Go it says so and ends well.
# A test that is expected to pass and does not is run once more, alone: on a busy machine some lose patience. Both counts are
# printed.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tree="$(cd "$here/../../.." && pwd)"
version=v1.34.1
cache="${SIDER_CLIENTS_CACHE:-$HOME/.cache/sider-clients}/consul-api-$version"
list="$here/go/tests.txt"

times=1 update=no single=
while (($#)); do
  case "$1" in
    --times) times="$2" && shift ;;
    --update) update=yes ;;
    *) single="$1" ;;
  esac
  shift
done

for needed in go openssl; do
  if ! command -v "$needed" >/dev/null; then
    echo "skipped: the tests of Consul's Go client need $needed, which is not there"
    exit 0
  fi
done

export SDS_SERVER="${SDS_SERVER:-$tree/target/debug/sds-server}" SDS_AGENT="${SDS_AGENT:-$tree/target/debug/sds-agent}"
if [[ ! -x "$SDS_SERVER" || ! -x "$SDS_AGENT" ]]; then
  (cd "$tree" && cargo build --locked --bins)
fi

if [[ ! -x "$cache/consul-api.test" ]]; then
  mkdir -p "$cache"
  if ! (
    cd "$cache"
    [[ -f go.mod ]] || go mod init judge
    go get -t "github.com/hashicorp/consul/api@$version"
    go test -c -o consul-api.test github.com/hashicorp/consul/api
  ) >"$cache/build.log" 2>&1; then
    echo "skipped: the tests of Consul's Go client can't be built here (see $cache/build.log)"
    exit 0
  fi
fi

work="$(mktemp -d)"
# A test that panics leaves its servers behind.
stop_leftovers() {
  for process in /proc/[0-9]*; do
    if { tr "\\0" " " <"$process/cmdline"; } 2>/dev/null | grep -qF -- "-config $work/tmp/"; then
      kill -9 "${process#/proc/}" 2>/dev/null || true
    fi
  done
}
trap 'stop_leftovers; rm -rf "$work"' EXIT
mkdir -p "$work/api" "$work/test" "$work/tmp"
"$here/go/certificates.sh" "$work/test"
export PATH="$here/go:$PATH" TMPDIR="$work/tmp"

run() { # pattern, parallel tests, output
  (cd "$work/api" && timeout 900 "$cache/consul-api.test" -test.v -test.run "$1" -test.parallel "$2" >"$3" 2>&1) || true
}
passed() { sed -n 's/^--- PASS: \([^ /]*\) .*/\1/p' "$1" | sort -u; }
ended() { sed -n 's/^--- \(PASS\|FAIL\|SKIP\): \([^ /]*\) .*/\2/p' "$1" | sort -u; }

# run_all TESTS PARALLEL OUTPUT: where a test panics, those that it took along are run without it.
run_all() {
  local left="$1" before=
  : >"$3"
  while [[ -n "$left" && "$left" != "$before" ]]; do
    run "^($(paste -sd'|' <<<"$left"))\$" "$2" "$work/part"
    stop_leftovers
    cat "$work/part" >>"$3"
    before="$left"
    left="$(comm -23 <(echo "$left") <(ended "$work/part"))"
  done
}

if [[ -n "$single" ]]; then
  run "^($single)\$" 1 /dev/stdout
  exit
fi

all="$(cut -f1 "$list" | sort -u)"
count="$(wc -l <<<"$all")"
good="$all"
expected="$(awk -F'\t' '$2 == "passes" { print $1 }' "$list" | sort -u)"
for ((time = 1; time <= times; time++)); do
  run_all "$all" 6 "$work/first"
  at_once="$(comm -12 <(echo "$all") <(passed "$work/first"))"
  : >"$work/again"
  for test in $(comm -23 <(echo "$expected") <(echo "$at_once")); do
    run "^($test)\$" 1 "$work/part"
    cat "$work/part" >>"$work/again"
  done
  again="$(comm -23 <(echo "$expected") <(echo "$at_once"))"
  now="$({ echo "$at_once"; comm -12 <(echo "$again") <(passed "$work/again"); } | grep . | sort -u)"
  echo "run $time: $(grep -c . <<<"$now") of $count pass, $(grep -c . <<<"$at_once") of them at once"
  good="$(comm -12 <(echo "$good") <(echo "$now"))"
done
cp "$work/first" "$cache/last.log" && cat "$work/again" >>"$cache/last.log"

if [[ $update == yes ]]; then
  while read -r test; do
    printf '%s\t%s\n' "$test" "$(grep -qx "$test" <<<"$good" && echo passes || echo differs)"
  done <<<"$all" >"$list"
fi
lost="$(comm -23 <(echo "$expected") <(echo "$good"))"
won="$(comm -13 <(echo "$expected") <(echo "$good"))"
[[ -z "$won" ]] || printf 'passes, and is not expected to (see --update):\n%s\n' "$won"
total="$(grep -c . <<<"$good")"
if [[ -n "$lost" ]]; then
  printf 'does not pass any more (output in %s):\n%s\n' "$cache/last.log" "$lost"
  echo "$total passed, $(grep -c . <<<"$lost") failed"
  exit 1
fi
echo "$total passed, 0 failed, $((count - total)) skipped"
