#!/usr/bin/env bash
# Runs the own tests of py-consul, a Python client, against this tree's server. They come with its source package; what
# starts a server for them is ours (python/conftest.py).
set -euo pipefail
source "$(dirname "$0")/common.sh"
version=1.8.0
cache="$cache_of_all/py-consul-$version"
need python3
need curl
build_programs
if [[ ! -f "$cache/ready" ]]; then
  mkdir -p "$cache"
  (
    cd "$cache" &&
      python3 -m venv venv &&
      venv/bin/pip install --quiet pytest pytest_asyncio pytest-rerunfailures requests aiohttp docker setuptools &&
      venv/bin/pip download --quiet --no-deps --no-binary :all: "py-consul==$version" &&
      tar xf "py_consul-$version.tar.gz" &&
      venv/bin/pip install --quiet "./py_consul-$version" &&
      touch ready
  ) >"$cache/install.log" 2>&1 || skip "py-consul can't be installed here (see $cache/install.log)"
fi
cp -r "$cache/py_consul-$version" "$work/suite"
cp "$here/python/conftest.py" "$work/suite/conftest.py"
cd "$work/suite"
# Its own settings ask for plugins that matter to nobody here.
"$cache/venv/bin/python" -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . -o asyncio_mode=auto --tb=line "$@" tests 2>&1 |
  tee "$cache/last.log" | tail -n 40
