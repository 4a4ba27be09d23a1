"""People's side of ownloop over HTTP: the JSON API, the inbox, who may do what (extra `[server]`)."""

from __future__ import annotations

from .auth import Auth, Principal, Proxy
from .desk import Desk
from .site import NotSafe, Served, create, router, serve
from .tokens import Token, Tokens

__all__ = ["Auth", "Desk", "NotSafe", "Principal", "Proxy", "Served", "Token", "Tokens", "create", "router", "serve"]
