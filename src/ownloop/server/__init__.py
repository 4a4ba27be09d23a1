"""People's side of ownloop over HTTP: the JSON API, the inbox, who may do what (extra `[server]`)."""

from __future__ import annotations

try:
    from .auth import Auth, Principal, Proxy
    from .desk import Desk
    from .site import NotSafe, Served, create, router, serve
    from .tokens import Token, Tokens
except ImportError as error:
    raise ImportError(f"ownloop.server needs what is not installed ({error}); install it with: pip install 'ownloop[server]'") from error

__all__ = ["Auth", "Desk", "NotSafe", "Principal", "Proxy", "Served", "Token", "Tokens", "create", "router", "serve"]
