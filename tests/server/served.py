"""A server in a process of its own, to be killed: python served.py URL PORT TOKEN_FILE."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bureau import make

from ownloop.server import Served, serve


def main(url: str, port: str, token_file: str) -> None:
    bureau = make(url)

    async def prepare() -> None:
        if not Path(token_file).exists():
            Path(token_file).write_text(await bureau.token("ann", groups=("managers",)), encoding="utf-8")
        await bureau.app.aclose()

    asyncio.run(prepare())

    def ready(served: Served) -> None:
        print(served.url, served.login, flush=True)

    serve(make(url).app, "127.0.0.1", int(port), ready=ready)


main(*sys.argv[1:])
