"""The programs that are measured and that measure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from servers import Sider

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[2]
CLIENT = "v3.6.14"


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(0)


def find_sider():
    Sider.program = os.environ.get("SDS_SERVER") or str(TREE / "target/release/sds-server")
    if not Path(Sider.program).exists():
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "sider", "--bins"], cwd=TREE, check=True)


def build_generator():
    if not shutil.which("go"):
        skip("the generator needs Go, which is not there")
    default = Path.home() / ".cache/sider-performance"
    cache = Path(os.environ.get("SIDER_PERFORMANCE_CACHE", default)) / f"generator-{CLIENT}"
    cache.mkdir(parents=True, exist_ok=True)
    sources = {path.name: path.read_text() for path in (HERE / "generator").glob("*.go")}
    program = cache / "generator"
    kept = {path.name: path.read_text() for path in cache.glob("*.go")}
    if program.exists() and kept == sources:
        return str(program)
    for path in cache.glob("*.go"):
        path.unlink()
    for name, text in sources.items():
        (cache / name).write_text(text)
    with (cache / "build.log").open("w") as log:
        for command in (
            ["go", "mod", "init", "generator"] if not (cache / "go.mod").exists() else ["true"],
            ["go", "get", f"go.etcd.io/etcd/client/v3@{CLIENT}"],
            ["go", "build", "-o", "generator", "."],
        ):
            environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off"}
            if subprocess.run(command, cwd=cache, env=environment, stdout=log, stderr=log).returncode:
                skip(f"the generator can't be built here (see {log.name})")
    return str(program)


def generate(generator, kind, address, processor=None, **flags):
    """One run of the generator; gives what it printed last."""
    command = ["taskset", "-c", str(processor)] if processor is not None else []
    command += [generator, kind, "-addr", address] + [f"-{flag}={value}" for flag, value in flags.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    figures = json.loads(done.stdout.splitlines()[-1])
    if figures.get("errors"):
        print(f"  {kind} {flags}: {figures['errors']} errors, {figures['problem']}", flush=True)
    return figures


def spread(values):
    values = sorted(values)
    return values[0], values[len(values) // 2], values[-1]


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"
