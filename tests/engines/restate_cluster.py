"""A Restate cluster for tests and measurements: three nodes, every record on two of them, from the npm package that `make test` installs."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from temporal_server import NotHere, free_port

NODES = 3
CONFIG = """
roles = ["worker", "admin", "metadata-server", "log-server", "http-ingress"]
cluster-name = "{cluster}"
node-name = "n{number}"
auto-provision = {provision}
default-replication = 2
default-num-partitions = 4
bind-address = "127.0.0.1:{node}"
advertised-address = "http://127.0.0.1:{node}"
listen-mode = "tcp"
base-dir = "{folder}"
disable-telemetry = true
rocksdb-total-memory-size = "256MB"
[metadata-client]
type = "replicated"
addresses = [{addresses}]
[bifrost]
default-provider = "replicated"
[worker.invoker]
http2-keep-alive-interval = "1s"
http2-keep-alive-timeout = "2s"
[admin]
bind-address = "127.0.0.1:{admin}"
advertised-address = "http://127.0.0.1:{admin}"
[ingress]
bind-address = "127.0.0.1:{ingress}"
advertised-address = "http://127.0.0.1:{ingress}"
"""


def binary() -> Path:
    """The server's file."""
    kind = f"{platform.system().lower()}-{ {'x86_64': 'x64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }"
    file = Path(sys.prefix) / "npm" / "restate" / "node_modules" / "@restatedev" / f"restate-server-{kind}" / "bin" / "restate-server"
    if not file.exists():
        raise NotHere(f"no Restate server: {file} is missing; make test installs it (@restatedev/restate-server from npm, for Linux and macOS)")
    return file


class Node:
    """One server of the cluster; it goes on from its folder after `kill` and `start`."""

    def __init__(self, folder: Path, number: int, ports: list[int]) -> None:
        self._folder = folder / f"n{number}"
        self._folder.mkdir()
        node, self.admin_port, self.ingress_port = ports[number::NODES]
        self._process: subprocess.Popen[bytes] | None = None
        self.admin, self.ingress = f"http://127.0.0.1:{self.admin_port}", f"http://127.0.0.1:{self.ingress_port}"
        addresses = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports[:NODES])
        values = {"cluster": folder.name, "number": number, "provision": "true" if number == 0 else "false", "folder": self._folder}
        text = CONFIG.format(**values, addresses=addresses, node=node, admin=self.admin_port, ingress=self.ingress_port)
        (self._folder / "config.toml").write_text(text)

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            command = [str(binary()), "--config-file", str(self._folder / "config.toml")]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    @property
    def is_ready(self) -> bool:
        return _answers(f"{self.admin}/health") and _answers(f"{self.ingress}/restate/health")

    @property
    def last_words(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]


class Cluster:
    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(3 * NODES)]
        self.nodes = [Node(folder, number, ports) for number in range(NODES)]

    def start(self) -> None:
        """Returns when every node is ready."""
        for node in self.nodes:
            node.start()
        self.wait()

    def wait(self, seconds: float = 60) -> None:
        give_up = time.monotonic() + seconds
        while not (all(node.is_ready for node in self.nodes) and self._has_leaders()):
            assert time.monotonic() < give_up, "\n".join(node.last_words for node in self.nodes)
            time.sleep(0.1)

    @property
    def ingress(self) -> list[str]:
        return [node.ingress for node in self.nodes]

    @property
    def admin(self) -> str:
        return self.nodes[0].admin

    def query(self, sql: str) -> list[dict[str, object]]:
        """Rows of Restate's own tables; asked again while a partition has no leader."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        request = urllib.request.Request(f"{self.admin}/query", json.dumps({"query": sql}).encode(), headers)
        for is_last in (*[False] * 50, True):
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return list(json.load(answer)["rows"])
            except urllib.error.HTTPError:
                if is_last:
                    raise
                time.sleep(0.1)
        raise AssertionError("the last time raises")

    def _has_leaders(self) -> bool:
        with suppress(OSError):
            return bool(self.query("SELECT count(*) FROM sys_invocation"))
        return False

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


@contextmanager
def restate() -> Iterator[Cluster]:
    """A cluster that has nothing; it is killed and forgotten at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ownloop-restate-"))
    try:
        cluster = Cluster(folder)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def served() -> Iterator[Cluster]:
    """For a fixture: such a cluster; without a server to run, what asks for it is skipped."""
    import pytest

    try:
        binary()
    except NotHere as error:
        pytest.skip(str(error))
    with restate() as started:
        yield started


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
        return bool(answer.status == 200)
    return False
