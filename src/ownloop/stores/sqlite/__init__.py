"""SQLite: the default store."""

from .store import SqliteStore

__all__ = ["SqliteStore"]
