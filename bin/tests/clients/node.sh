#!/usr/bin/env bash
# Tries the npm client `consul` against this tree's server: keys, sessions, services with checks that the server runs, a watch.
set -euo pipefail
source "$(dirname "$0")/common.sh"
version=2.0.1
cache="$cache_of_all/npm-consul-$version"
need node
need npm
need curl
build_programs
if [[ ! -d "$cache/node_modules/consul" ]]; then
  mkdir -p "$cache"
  (cd "$cache" && npm init -y && npm install --no-audit --no-fund "consul@$version") >"$cache/install.log" 2>&1 ||
    skip "the npm package consul can't be installed here (see $cache/install.log)"
fi
start_server 18510 18511
cp "$here/node/try.cjs" "$cache/try.cjs"
(cd "$cache" && node try.cjs 18510)
