"""`ownloop webhook`: what could not be delivered is seen, and sent again."""

from __future__ import annotations

import json
from pathlib import Path

from .programs import AGENT, quick, running, wait

STORE = "sqlite:///t.db"
DOWN = """
from ownloop.server.webhooks import Endpoint, Webhooks
webhooks = Webhooks(app, [Endpoint("http://127.0.0.1:9/in", ["whsec_" + "eHh4" * 11], ["thread.started"])], allow=["127.0.0.0/8"])
"""


def test_what_could_not_be_delivered_is_listed_and_sent_again(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT + DOWN)

    def listed() -> list[dict[str, object]]:
        return json.loads(quick(tmp_path, "webhook", "list", "--json", "--store", STORE).stdout)["deliveries"]  # type: ignore[no-any-return]

    with running(tmp_path, "serve", "agent.py", "-p", "0", "--store", STORE, "--worker", "--json") as server:
        server.where()
        quick(tmp_path, "start", "desk", "nothing", "--store", STORE)
        wait(lambda: listed() and listed()[0]["problem"])
    (waiting,) = listed()
    assert (waiting["status"], waiting["url"], waiting["type"]) == ("pending", "http://127.0.0.1:9/in", "thread.started")
    assert "ConnectError" in str(waiting["problem"])
    assert quick(tmp_path, "webhook", "again", str(waiting["id"]), "--store", STORE).returncode == 0
    assert listed()[0]["tries"] == 0
    assert quick(tmp_path, "webhook", "again", "msg_none", "--store", STORE).returncode == 3
    assert "ConnectError" in quick(tmp_path, "webhook", "list", "--store", STORE).stdout
