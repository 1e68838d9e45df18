#!/usr/bin/env python3
"""Three servers, and clients that ask one by chance for each call, while every ten seconds one server is killed and started
again. Locks must exclude each other, sessions and registrations that are renewed must live, watches must miss nothing, and
only such errors may be seen as a client has to expect.

    SDS_SERVER=target/debug/sds-server bin/tests/clients/chaos.py [SECONDS, 60 if not given]
"""

import base64
import http.client
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
TREE = pathlib.Path(__file__).resolve().parents[3]
SERVER = os.environ.get("SDS_SERVER", str(TREE / "target/debug/sds-server"))
KILL_EVERY, DOWN_FOR = 10.0, 2.0
TTL = 10.0
# How much a client's own clock and a busy machine may add to what it believes.
SLACK = 1.0
# What a client of any cluster has to expect while a server is gone.
EXPECTED = ("No cluster leader", "outcome unknown", "server stopped", "starting or stopping", "rpc error")

over = threading.Event()
# A cluster that has just begun says so, and is not judged yet.
judged = threading.Event()
lock = threading.Lock()
violations, counts = [], {}


def count(what):
    with lock:
        counts[what] = counts.get(what, 0) + 1


def violated(what):
    with lock:
        violations.append(f"{time.time() - began:.1f} s: {what}")


class Unknown(Exception):
    """It may have been done or not."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.http = [free_port() for _ in range(3)]
        raft = [free_port() for _ in range(3)]
        peers = [
            {"id": f"n{n}", "raft_addr": f"127.0.0.1:{raft[n]}", "http_addr": f"127.0.0.1:{self.http[n]}"}
            for n in range(3)
        ]
        self.config = os.path.join(folder, "cluster.json")
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump({"peers": peers}, file)
        self.servers = [self.start(n, ["-raft-bootstrap"] if n == 0 else []) for n in range(3)]

    def start(self, n, flags=()):
        log = open(os.path.join(self.folder, f"n{n}.log"), "a", encoding="utf-8")
        flags = ["-config", self.config, "-raft-id", f"n{n}", "-raft-dir", os.path.join(self.folder, f"n{n}"), *flags]
        return subprocess.Popen([SERVER, *flags], stderr=log)

    def call(self, method, path, body=None, timeout=8.0):
        """One call at a server that chance picks: status, index, and what it answers."""
        port = random.choice(self.http)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode()
        except OSError as error:
            count("errors: connection")
            raise Unknown(str(error)) from error
        except http.client.HTTPException as error:
            count("errors: connection")
            raise Unknown(str(error)) from error
        finally:
            connection.close()
        if answer.status >= 500:
            count(f"errors: {answer.status} {text.strip()[:40]}")
            if judged.is_set() and not any(word in text for word in EXPECTED):
                violated(f"{method} {path}: {answer.status} {text.strip()!r}")
            raise Unknown(text)
        index = int(answer.headers.get("X-Consul-Index", 0))
        return answer.status, index, text

    def insist(self, method, path, body=None, until=None):
        """The same again and again until it is answered; `None` when time is over."""
        while until is None or time.monotonic() < until:
            try:
                return self.call(method, path, body)
            except Unknown:
                time.sleep(0.05)
        return None


def killer(cluster):
    while not over.wait(KILL_EVERY - DOWN_FOR):
        n = random.randrange(3)
        cluster.servers[n].kill()
        cluster.servers[n].wait()
        count("kills")
        time.sleep(DOWN_FOR)
        cluster.servers[n] = cluster.start(n)


holder = []  # Who believes to hold the lock, and until when.


def locker(cluster, name):
    while not over.is_set():
        asked = time.monotonic()
        made = cluster.insist("PUT", "/v1/session/create", {"TTL": f"{TTL:.0f}s", "LockDelay": "1s"})
        session = json.loads(made[2])["ID"]
        try:
            _, _, text = cluster.call("PUT", f"/v1/kv/lock?acquire={session}", name)
            held = text.strip() == "true"
        except Unknown:
            # It may be held. Nothing is done under it: the session ends, and it with it.
            held = False
        if held:
            until = asked + TTL - SLACK
            with lock:
                now = time.monotonic()
                others = [other for other, end in holder if end > now]
                holder.append((name, until))
            if others:
                violated(f"{name} took the lock while {others} held it")
            count("locks taken")
            time.sleep(random.uniform(0.05, 0.5))
            with lock:
                holder.remove((name, until))
        cluster.insist("PUT", f"/v1/session/destroy/{session}", until=time.monotonic() + TTL)
        if not held:
            time.sleep(random.uniform(0, 0.3))


def keeper(cluster):
    """A session that is renewed lives."""
    made = cluster.insist("PUT", "/v1/session/create", {"TTL": f"{TTL:.0f}s", "Name": "kept"})
    session, renewed = json.loads(made[2])["ID"], time.monotonic()
    while not over.wait(1.0):
        asked = time.monotonic()
        answer = cluster.insist("PUT", f"/v1/session/renew/{session}", until=asked + TTL)
        if asked - renewed > TTL - SLACK or answer is None:
            violated("a session could not be renewed in time")
            return
        if answer[0] != 200:
            violated(f"a session that was renewed {asked - renewed:.1f} s ago is gone: {answer[0]} {answer[2]!r}")
            return
        renewed = asked
        count("sessions renewed")


def service(cluster):
    """A registration that is renewed is there, and passes."""
    body = {"Name": "web", "ID": "web-1", "Port": 80, "Check": {"TTL": f"{TTL:.0f}s", "Status": "passing"}}
    cluster.insist("PUT", "/v1/agent/service/register", body)
    while not over.wait(1.0):
        asked = time.monotonic()
        answer = cluster.insist("PUT", "/v1/agent/check/pass/service:web-1", until=asked + TTL)
        if answer is None or answer[0] != 200:
            violated(f"a check could not be renewed: {answer}")
            return
        found = cluster.insist("GET", "/v1/health/service/web?passing", until=asked + TTL - SLACK)
        if found is not None and len(json.loads(found[2])) != 1:
            violated(f"a service that was renewed is not healthy: {found[2]}")
        count("services renewed")


written = [0]  # The last number that is certainly there.


def writer(cluster):
    number = 0
    while not over.is_set():
        number += 1
        cluster.insist("PUT", "/v1/kv/counter", number)
        written[0] = number
        count("numbers written")
        time.sleep(random.uniform(0, 0.2))


def watcher(cluster):
    index = seen = 0
    while True:
        done = over.is_set()
        floor = written[0]
        try:
            status, now, text = cluster.call("GET", f"/v1/kv/counter?index={index}&wait=2s")
        except Unknown:
            continue
        if now < index:
            violated(f"an index went back from {index} to {now}")
        if status == 200:
            value = int(base64.b64decode(json.loads(text)[0]["Value"]))
            if value < max(seen, floor):
                violated(f"a watch saw {value} after {max(seen, floor)}")
            count("watch answers")
            seen = max(seen, value)
        index = now
        if done:
            if seen < written[0]:
                violated(f"a watch ended with {seen} and not with {written[0]}")
            return


def main():
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(folder)
        try:
            assert cluster.insist("GET", "/v1/catalog/nodes", until=time.monotonic() + 30), "no leader"
            assert cluster.insist("PUT", "/v1/kv/begun", 1, until=time.monotonic() + 30), "no writes"
            judged.set()
            work = [(locker, (cluster, f"client-{n}")) for n in range(3)]
            work += [(keeper, (cluster,)), (service, (cluster,)), (writer, (cluster,)), (watcher, (cluster,))]
            threads = [threading.Thread(target=task, args=args) for task, args in [*work, (killer, (cluster,))]]
            for thread in threads:
                thread.start()
            time.sleep(SECONDS)
            over.set()
            for thread in threads:
                thread.join()
        finally:
            for process in cluster.servers:
                process.kill()
                process.wait()
    for what, times in sorted(counts.items()):
        print(f"{times:6} {what}")
    for violation in violations[:20]:
        print("VIOLATED:", violation)
    print(f"{0 if violations else 1} passed, {1 if violations else 0} failed")
    return 1 if violations else 0


began = time.time()
if not os.access(SERVER, os.X_OK):
    print(f"skipped: there is no {SERVER}: build it first")
    sys.exit(0)
sys.exit(main())
