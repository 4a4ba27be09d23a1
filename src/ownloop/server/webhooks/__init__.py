"""Webhooks in both directions, after Standard Webhooks."""

from .incoming import Decide, Emit, Hooks, Request, Send
from .outgoing import Delivery, Endpoint, Webhooks
from .signing import NotVerified, new_secret, signed_headers, verify

__all__ = ["Decide", "Delivery", "Emit", "Endpoint", "Hooks", "NotVerified", "Request", "Send", "Webhooks", "new_secret", "signed_headers", "verify"]
