#!/usr/bin/env bash
# Has consul-template render services and keys while they change.
set -euo pipefail
source "$(dirname "$0")/common.sh"
version=v0.41.1
cache="$cache_of_all/consul-template-$version"
need go
need curl
build_programs
if [[ ! -x "$cache/consul-template" ]]; then
  mkdir -p "$cache"
  GOBIN="$cache" go install "github.com/hashicorp/consul-template@$version" >"$cache/install.log" 2>&1 ||
    skip "consul-template can't be built here (see $cache/install.log)"
fi
start_server 18520 18521
api=127.0.0.1:18520/v1
cat >"$work/in.tpl" <<'END'
{{range service "web"}}{{.Name}} {{.Address}}:{{.Port}}
{{end}}key={{keyOrDefault "app/key" "none"}}
END
"$cache/consul-template" -consul-addr 127.0.0.1:18520 -template "$work/in.tpl:$work/out" 2>"$work/template.log" &
tried=0
expect() { # what is rendered
  for _ in $(seq 100); do
    if [[ "$(cat "$work/out" 2>/dev/null)" == "$1" ]]; then
      tried=$((tried + 1))
      echo "ok: ${1//$'\n'/, }"
      return
    fi
    sleep 0.1
  done
  printf 'expected:\n%s\nrendered:\n%s\n' "$1" "$(cat "$work/out" 2>/dev/null)"
  tail -n 20 "$work/template.log"
  exit 1
}
register() { # id, port
  curl -sf -X PUT "$api/agent/service/register" \
    -d "{\"Name\": \"web\", \"ID\": \"$1\", \"Address\": \"10.0.0.1\", \"Port\": $2, \"Check\": {\"TTL\": \"60s\", \"Status\": \"passing\"}}" >/dev/null
}
expect "key=none"
register web-1 81
expect $'web 10.0.0.1:81\nkey=none'
curl -sf -X PUT "$api/kv/app/key" -d value >/dev/null
expect $'web 10.0.0.1:81\nkey=value'
register web-2 82
expect $'web 10.0.0.1:81\nweb 10.0.0.1:82\nkey=value'
curl -sf -X PUT "$api/agent/check/fail/service:web-1" >/dev/null
expect $'web 10.0.0.1:82\nkey=value'
curl -sf -X PUT "$api/agent/service/deregister/web-2" >/dev/null
curl -sf -X DELETE "$api/kv/app/key" >/dev/null
expect "key=none"
echo "$tried passed, 0 failed"
