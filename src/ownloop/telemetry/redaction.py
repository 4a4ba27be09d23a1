"""Secrets that text may hold, by their looks. When in doubt something harmless is hidden too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..events import Json

HIDDEN = "***"
_NAMES = r"(?:api[_-]?key|access[_-]?key|private[_-]?key|passw(?:or)?d|passphrase|secret|token|credentials?|authorization|cookie)"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s:/@]*:)[^\s/]+(?=@)"), rf"\1{HIDDEN}"),  # user:password@ in a URL
    (re.compile(r"\b(sk|rk|pk)([-_])[A-Za-z0-9_-]{8,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(whsec_)[A-Za-z0-9+/=_-]{6,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(ownloop_)[A-Za-z0-9_-]{16,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_)[A-Za-z0-9_-]{10,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(AIza)[A-Za-z0-9_-]{20,}|\b(AKIA|ASIA)[A-Z0-9]{12,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),  # a JSON web token
)
_NAMED = re.compile(rf"(?i)([\w.-]*{_NAMES}[\w.-]*)([\"']?\s*[:=]\s*)(\"[^\"]*\"|'[^']*'|[^\s\"',;&}})\]]+)")
_NAME = re.compile(rf"(?i)[\w.-]*{_NAMES}$")


def redacted(text: str) -> str:
    """The text without bearer tokens, API keys, webhook secrets, passwords in URLs, and values named like a secret."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return _NAMED.sub(_named, text)


def _named(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    if value.isdecimal() and len(value) < 10 and "token" in name.lower():  # a count
        return found.group()
    quote = value[0] if value[0] in "\"'" else ""
    return f"{name}{between}{quote}{HIDDEN}{quote}"


def redacted_json(value: Any) -> Json:
    """The same for every string in a value, and for fields named like a secret."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {str(name): HIDDEN if _NAME.fullmatch(str(name)) and isinstance(item, str) else redacted_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else redacted(str(value))
