"""From a URL to its store; only that one is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from ..clock import Clock
from ..errors import StoreError
from .base import Store

STORES: Mapping[str, tuple[str, str]] = {
    "memory": ("ownloop.stores.memory", "MemoryStore"),
    "sqlite": ("ownloop.stores.sqlite", "SqliteStore"),
    **dict.fromkeys(("postgresql", "postgres"), ("ownloop.stores.postgres", "PostgresStore")),
}


def open_store(url_or_store: str | Store, clock: Clock | None) -> Store:
    """The store that a URL names; nothing is opened yet.

    Raises:
        TypeError: it is neither a URL nor a store.
        ValueError: no store has that scheme.
        ImportError: the extra with its driver is not installed.
    """
    if not isinstance(url_or_store, str):
        if not hasattr(url_or_store, "claim"):
            unset = "; is an environment variable not set?" if url_or_store is None else ""
            raise TypeError(f"App({url_or_store!r}) names no store: write a URL, for instance sqlite:///agents.db{unset}")
        return url_or_store
    scheme = url_or_store.partition(":")[0]
    if scheme not in STORES or "://" not in url_or_store:
        known = ", ".join(f"{name}://…" for name in STORES)
        plain = scheme.partition("+")[0]
        cure = f"; leave the driver out: {plain}://…" if plain != scheme and plain in STORES else ""
        raise ValueError(f"{masked(url_or_store)!r} names no store; known: {known} (sqlite:///relative.db, sqlite:////absolute.db){cure}")
    module, name = STORES[scheme]
    try:
        made = getattr(import_module(module), name)
    except ImportError as error:
        raise ImportError(f"{scheme}://… needs a driver that is not installed ({error}); install it with: pip install 'ownloop[postgres]'") from error
    return cast(Store, made(clock) if scheme == "memory" else made(url_or_store, clock))


def masked(url: str) -> str:
    """The URL without its passwords, also where it is no proper URL: rather too much is hidden than too little."""
    head, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    text = head + mark + re.sub(r"^([^:@/?#]*):.*@", r"\1:***@", rest, flags=re.DOTALL)
    return re.sub(r"((?:ssl)?password=)[^&\s]*", r"\1***", text)


def joined(store: Store, tx: Any) -> Store:
    """What writes in the caller's transaction, where there is one; else the store itself.

    Raises:
        StoreError: this store cannot.
    """
    if tx is None:
        return store
    within = getattr(store, "within", None)
    if within is None:
        raise StoreError(f"tx=: {store.url} cannot write in a transaction of yours; leave tx= out, or keep the threads in postgresql://…")
    return cast(Store, within(tx))
