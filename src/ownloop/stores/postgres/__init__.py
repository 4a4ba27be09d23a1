"""Postgres: a store for any number of machines."""

from .store import PostgresStore

__all__ = ["PostgresStore"]
