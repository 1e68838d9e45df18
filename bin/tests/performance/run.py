#!/usr/bin/env python3
"""Measures Sider beside etcd on this machine, in turn, and prints a table in Markdown.

    bin/tests/performance/run.py                     everything: about 25 minutes
    bin/tests/performance/run.py --quick             one short run of each: about 4 minutes, to see that it works
    bin/tests/performance/run.py register1 failover  these rows alone

SDS_SERVER names the program (target/release/sds-server, built if it is not there), ETCD etcd's, SIDER_PERFORMANCE_CACHE
the folder of the generator (~/.cache/sider-performance). Without etcd or Go it says so and ends well. --raw FILE
gathers the figures of several calls, and --table prints what a file holds. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import rows
from programs import build_generator, find_sider, number, skip, spread
from servers import Etcd


def find_programs():
    Etcd.program = os.environ.get("ETCD") or shutil.which("etcd") or skip("etcd is not there (Debian: etcd-server)")
    find_sider()


def line(row, pairs):
    """One line of the table; a ratio above 1 is in Sider's favour."""
    better = [s / e if row.more_is_better else e / s for s, e in pairs]
    sider, etcd = (spread(side) for side in zip(*pairs))
    if row.absolute:
        goal, met = f"≤ {number(row.goal)}", sider[1] <= row.goal
    else:
        goal, met = f"≥ {row.goal} ×", spread(better)[1] >= row.goal
    ratios = " / ".join(f"{ratio:.2f}" for ratio in spread(better))
    figures = " / ".join(number(figure) for figure in sider)
    return f"| {row.name} | {row.unit} | {number(etcd[1])} | {figures} | {ratios} | {goal} | {'yes' if met else 'no'} |"


HEAD = """| work | unit | etcd, median | Sider, min / median / max | ratio, min / median / max | goal | met |
|---|---|---|---|---|---|---|"""


def table(path):
    """The newest figures of each row."""
    newest = {}
    for text in Path(path).read_text().splitlines():
        record = json.loads(text)
        newest[record["row"]["name"]] = line(rows.Row(**record["row"]), record["pairs"])
    print("\n".join([HEAD, *newest.values()]))


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(rows.ROWS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--raw", metavar="FILE")
    parser.add_argument("--table", metavar="FILE")
    asked = parser.parse_args()
    unknown = set(asked.rows) - set(rows.ROWS)
    if unknown:
        parser.error(f"unknown rows: {', '.join(unknown)}; there are {', '.join(rows.ROWS)}")
    return asked


def main():
    asked = arguments()
    if asked.table:
        return table(asked.table)
    find_programs()
    generator = build_generator()
    with tempfile.TemporaryDirectory(prefix="sider-performance-") as folder:
        raw = asked.raw or os.path.join(folder, "raw.jsonl")
        settings = rows.Settings(generator, folder)
        if asked.quick:
            settings = rows.Settings(generator, folder, 1, 1.0, 500, 20_000, 3)
        for name in asked.rows or rows.ROWS:
            for row, pairs in rows.ROWS[name](settings):
                print(line(row, pairs), flush=True)
                with open(raw, "a") as file:
                    file.write(json.dumps({"row": asdict(row), "pairs": pairs}) + "\n")
        if os.path.exists(raw):
            print()
            table(raw)


if __name__ == "__main__":
    main()
