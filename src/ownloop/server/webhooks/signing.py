"""Standard Webhooks: how a request is signed, and how a signature is checked.

Source: https://www.standardwebhooks.com, specification 1.0.0 (symmetric signatures, `v1`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets as randomness
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

TOLERANCE = timedelta(minutes=5)
"""How far the time of a request may be from ours."""
PREFIX = "whsec_"


class NotVerified(Exception):
    """The request is not from who holds the secret, or it is not of now."""


def new_secret() -> str:
    """A secret of 32 random bytes, as both sides keep it."""
    return PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret "whsec_<base64 of 24 to 64 bytes>".

    Raises:
        ValueError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f"a webhook secret is {PREFIX} and the base64 of 24 to 64 bytes; `ownloop.server.webhooks.new_secret()` makes one")
    return key


def signed_headers(secrets: Sequence[str], id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a request; one signature for each secret, so that a secret can be replaced while both sides know both."""
    stamp = str(int(at.timestamp()))
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": " ".join(_signature(secret, id, stamp, body) for secret in secrets)}


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """The id of a request that was signed with one of these secrets within the last five minutes.

    Raises:
        NotVerified: with the reason, which is safe to tell the sender.
    """
    id, stamp, signatures = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (id and stamp and signatures):
        raise NotVerified("webhook-id, webhook-timestamp and webhook-signature are all needed")
    try:
        at = datetime.fromtimestamp(int(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        raise NotVerified("webhook-timestamp is no number of seconds since 1970") from None
    if abs(at - now) > TOLERANCE:
        raise NotVerified(f"webhook-timestamp is more than {TOLERANCE.seconds // 60} minutes from now; send it again with a new one")
    given = [signature.encode() for signature in signatures.split(" ")]
    expected = [_signature(secret, id, stamp, body).encode() for secret in secrets]
    if not any(hmac.compare_digest(one, other) for one in expected for other in given):
        raise NotVerified("no signature fits the body")
    return id


def _signature(secret: str, id: str, stamp: str, body: bytes) -> str:
    mac = hmac.new(key_of(secret), f"{id}.{stamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()
