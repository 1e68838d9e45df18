#!/usr/bin/env bash
# Has Prometheus find its targets in this tree's server (`consul_sd_configs`), and lose them again. Building it takes
# minutes; Debian's own can't find targets so.
set -euo pipefail
source "$(dirname "$0")/common.sh"
version=v0.311.0
cache="$cache_of_all/prometheus-$version"
need go
need curl
need python3
build_programs
prometheus="$cache/prometheus"
if [[ ! -x "$prometheus" ]]; then
  mkdir -p "$cache"
  # It replaces modules, so that it can't be installed: it is built where its source is.
  build_prometheus() {
    go mod download -json "github.com/prometheus/prometheus@$version" >"$work/module.json"
    cp -r "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])' <"$work/module.json")" "$work/source"
    chmod -R u+w "$work/source"
    (cd "$work/source" && GOWORK=off go build -tags remove_all_sd,enable_consul_sd -o "$prometheus" ./cmd/prometheus)
  }
  build_prometheus >"$cache/install.log" 2>&1 || skip "Prometheus can't be built here (see $cache/install.log)"
fi
start_server 18530 18531
api=127.0.0.1:18530/v1
cat >"$work/prometheus.yml" <<END
scrape_configs:
  - job_name: services
    scrape_interval: 1s
    consul_sd_configs:
      - server: 127.0.0.1:18530
        services: [web]
    relabel_configs:
      - source_labels: [__meta_consul_service_id]
        target_label: service_id
END
"$prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address=127.0.0.1:18532 \
  2>"$work/prometheus.log" &
tried=0
expect() { # ids of services that are scraped
  for _ in $(seq 150); do
    found="$({ curl -s 127.0.0.1:18532/api/v1/targets?state=active || true; } | python3 -c '
import json, sys
try:
    print(" ".join(sorted(target["labels"]["service_id"] for target in json.load(sys.stdin)["data"]["activeTargets"])))
except ValueError:
    print("?")')"
    if [[ "$found" == "$1" ]]; then
      tried=$((tried + 1))
      echo "ok: targets: ${1:-none}"
      return
    fi
    sleep 0.2
  done
  echo "expected the targets “$1”, found “$found”"
  exit 1
}
register() {
  curl -sf -X PUT "$api/agent/service/register" -d "{\"Name\": \"web\", \"ID\": \"$1\", \"Address\": \"127.0.0.1\", \"Port\": $2}" >/dev/null
}
expect ""
register web-1 18530
expect web-1
register web-2 18530
expect "web-1 web-2"
curl -sf -X PUT "$api/agent/service/deregister/web-1" >/dev/null
expect web-2
echo "$tried passed, 0 failed"
