"""From a name like "openai:gpt-5-mini" to a model of pydantic-ai's, opened when it is first asked, once for every event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from weakref import WeakKeyDictionary

from .failures import UnknownModel, failure_of, key_variable

CALLED = {"openai": "openai-chat", "gemini": "google"}
"""Where our name for a provider is not pydantic-ai's: there "openai:" is the Responses API, here that is "openai-responses:"."""
LOCAL = {"ollama": "http://localhost:11434/v1", "vllm": "http://localhost:8000/v1", "llamacpp": "http://localhost:8080/v1"}
"""Servers of your own, and where they listen unless `OLLAMA_BASE_URL`, `VLLM_BASE_URL` or `LLAMACPP_BASE_URL` or the name itself says otherwise."""


class Connection:
    """A model that can be asked.

    `model` is a name, "provider:model" or "provider:model@http://host:port/v1", or a model object of pydantic-ai's (or one with its async `request`).

    Attributes:
        name, provider: "gpt-5-mini", "openai".
        label: both, as errors show them.

    Raises:
        UnknownModel: the name names no provider.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._opened: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        if isinstance(model, str):
            self._kind, self.name, self._url = parsed(model)
            self.provider = self._kind.removesuffix("-chat").removesuffix("-responses")
        elif callable(getattr(model, "request", None)):
            self.name = str(getattr(model, "model_name", None) or type(model).__name__)
            self.provider = str(getattr(model, "system", None) or "custom")
        else:
            raise TypeError(f'{model!r} is no model; give a name ("openai:gpt-5-mini") or a model object of pydantic-ai')
        self.label = f"{self.provider}:{self.name}"

    def open(self) -> Any:
        """The model object. Connections belong to an event loop, so each loop gets its own.

        Raises:
            AuthenticationFailed: the key is missing.
            UnknownModel: there is no such provider.
        """
        if not isinstance(self._model, str):
            return self._model
        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            try:
                self._opened[loop] = opened(self._kind, self.name, self._url)
            except Exception as error:
                failure = failure_of(error, self.label)
                raise (error if failure is None else failure) from None
        return self._opened[loop]


def connect(model: Any) -> Connection:
    """The connection to a model; a `Model` of ours has one already."""
    known = model if isinstance(model, Connection) else getattr(model, "connection", None)
    return known if isinstance(known, Connection) else Connection(model)


def parsed(text: str) -> tuple[str, str, str | None]:
    """The provider, the model and the address in a name."""
    provider, colon, rest = text.partition(":")
    for scheme in ("@http://", "@https://"):
        name, at, address = rest.partition(scheme)
        if at:
            break
    else:
        name, address, scheme = rest, "", ""
    if not (colon and provider and name):
        raise UnknownModel(text, "the name does not say which provider")
    return provider, name, scheme[1:] + address if address else None


def opened(kind: str, name: str, url: str | None) -> Any:
    """A model object of pydantic-ai's."""
    try:
        from pydantic_ai.models import infer_model
    except ImportError as error:
        raise ImportError(f"{kind}:{name} needs pydantic-ai; install it with: pip install 'ownloop[llm]'") from error
    if kind == "llamacpp":
        return _compatible(kind, name, url or _address(kind))
    address = url or (_address(kind) if kind in LOCAL else None)
    return infer_model(f"{CALLED.get(kind, kind)}:{name}", provider_factory=lambda provider: _provider(provider, address))


def _provider(kind: str, url: str | None) -> Any:
    from pydantic_ai.providers import infer_provider, infer_provider_class

    try:
        return infer_provider(kind) if url is None else infer_provider_class(kind)(base_url=url)  # type: ignore[call-arg]  # those that have an address
    except ValueError:
        raise UnknownModel(kind, "there is no provider of this name") from None


def _compatible(kind: str, name: str, url: str) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    return OpenAIChatModel(name, provider=OpenAICompatibleProvider(kind, base_url=url, api_key=os.environ.get(key_variable(kind))))


def _address(kind: str) -> str:
    return os.environ.get(f"{kind.upper()}_BASE_URL") or LOCAL[kind]
