"""The model's side, each part loaded when it is first named: `import ownloop.llm` imports no SDK."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .judge import Verdict, judge  # at once: loaded later, the module would take the function's name

if TYPE_CHECKING:
    from ..tools import annotate as annotate
    from .budget import Budget as Budget
    from .budget import BudgetSpent as BudgetSpent
    from .cache import cached as cached
    from .compaction import compact_when as compact_when
    from .compaction import summarizer as summarizer
    from .failures import AuthenticationFailed as AuthenticationFailed
    from .failures import ContextTooLong as ContextTooLong
    from .failures import CutOff as CutOff
    from .failures import InvalidAnswer as InvalidAnswer
    from .failures import ModelError as ModelError
    from .failures import ModelTimeout as ModelTimeout
    from .failures import ProviderDown as ProviderDown
    from .failures import RateLimited as RateLimited
    from .failures import Refused as Refused
    from .failures import UnknownModel as UnknownModel
    from .failures import failure_of as failure_of
    from .limits import RateLimit as RateLimit
    from .limits import limited as limited
    from .memory import Memory as Memory
    from .model import Model as Model
    from .summaries import summarized as summarized

_WHERE = {
    "Model": "model",
    "summarized": "summaries",
    "cached": "cache",
    "limited": "limits",
    "RateLimit": "limits",
    "summarizer": "compaction",
    "compact_when": "compaction",
    "Budget": "budget",
    "BudgetSpent": "budget",
    "Memory": "memory",
    "annotate": "..tools",
    "ModelError": "failures",
    "AuthenticationFailed": "failures",
    "UnknownModel": "failures",
    "ContextTooLong": "failures",
    "Refused": "failures",
    "CutOff": "failures",
    "RateLimited": "failures",
    "ProviderDown": "failures",
    "ModelTimeout": "failures",
    "InvalidAnswer": "failures",
    "failure_of": "failures",
}

__all__ = [
    "AuthenticationFailed",
    "Budget",
    "BudgetSpent",
    "ContextTooLong",
    "CutOff",
    "InvalidAnswer",
    "Memory",
    "Model",
    "ModelError",
    "ModelTimeout",
    "ProviderDown",
    "RateLimit",
    "RateLimited",
    "Refused",
    "UnknownModel",
    "Verdict",
    "annotate",
    "cached",
    "compact_when",
    "failure_of",
    "judge",
    "limited",
    "summarized",
    "summarizer",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    relative = module if module.startswith(".") else f".{module}"
    return getattr(importlib.import_module(relative, __name__), name)
