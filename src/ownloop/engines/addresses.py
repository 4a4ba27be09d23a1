"""Where engines' servers and their workers are. What is no address is refused when it is said: asked for later, it would look like a server that
is away."""

from __future__ import annotations

import re
from collections.abc import Sequence


def host_and_port(name: str, text: str, example: str) -> tuple[str, int]:
    """The two, the host without brackets.

    Raises:
        ValueError: it is something else.
    """
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[^\s/:]+|\[[^\s/]+\]", host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{name}={text!r} is no address; say host:port, as in {example}")
    return host.strip("[]"), int(port)


def webs(name: str, urls: str | Sequence[str]) -> list[str]:
    """One or several, without slashes at their ends.

    Raises:
        ValueError: there is none, or one is something else.
    """
    several = [urls] if isinstance(urls, str) else list(urls)
    wrong = next((url for url in several if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url)), None)
    if wrong is not None or not several:
        raise ValueError(f"{name}={urls if wrong is None else wrong!r} is no address; say http://host:port, or https://")
    return [url.rstrip("/") for url in several]


def called_at(listen: str, url: str | None) -> str:
    """How others call who listens there: as was said, or by that place itself.

    Raises:
        ValueError: it is no address, or one that nobody else can call.
    """
    if url is None and host_and_port("listen", listen, "127.0.0.1:9080")[0] in ("0.0.0.0", "::"):
        raise ValueError(f"listen={listen!r} is every address of this machine; say also at which it is called: url='http://workers:9080'")
    return webs("url", url or f"http://{listen}")[0]
