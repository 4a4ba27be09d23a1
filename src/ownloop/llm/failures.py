"""What can go wrong with a model, one class for each thing to be done about it, and where an SDK's exception belongs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ..errors import OwnloopError
from ..events import Json, clip
from ..selection import TRIES
from .waiting import lowered, seconds_to_wait


class ModelError(OwnloopError):
    """A model gave no answer. A subclass says why; this class itself means that the provider refused the request as it is.

    Attributes:
        model: "provider:name".
        detail: what the provider said, at most 500 characters.
        status_code: of the HTTP answer, if there was one.
        transient: it passes by itself: the thread waits on a timer and asks again.
        retry_after: seconds after which the provider wants to be asked again, or None.
        headers: of the HTTP answer, names in lower case; empty if there was none.
    """

    what: ClassVar[str] = "refused the request"
    next_step: ClassVar[str] = "Change what it names, then retry the thread"
    transient: bool = False

    def __init__(
        self, model: str, detail: str, *, status_code: int | None = None, retry_after: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.model = model
        self.detail = clip(" ".join(detail.split()).rstrip("."), 500)
        self.status_code = status_code
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        status = f" (HTTP {status_code})" if status_code else ""
        super().__init__(f"{model} {self.what}{status}: {self.detail}. {self._next()}")

    def _next(self) -> str:
        return self.next_step


class AuthenticationFailed(ModelError):
    """There is no API key, or the provider does not accept it for this model."""

    what = "did not accept the API key"

    def _next(self) -> str:
        return f"Set {key_variable(self.model.partition(':')[0])} to a key that may use this model, then retry the thread"


class UnknownModel(ModelError):
    """The provider has no model of this name, or there is no provider of this name, or nothing is served at this address."""

    what = "was not found"
    next_step = 'Name it "provider:model", check the spelling and, for a server of your own, its address with the /v1 at the end'


class ContextTooLong(ModelError):
    """The prompt is longer than the model can read."""

    what = "cannot read a prompt of this length"
    next_step = "Shorten it with a view (token_budget, keep_last_results), thread.compact or summarized(...), then retry the thread"


class Refused(ModelError):
    """The model, or a filter of its provider, declined to answer."""

    what = "refused to answer"
    next_step = "Look at what the prompt asks for; the same prompt will hardly be answered otherwise"


class CutOff(ModelError):
    """The answer reached the limit of its length. It is never used, even if what there is looks whole: a call or a field may be missing."""

    what = "was cut off"
    next_step = 'Allow a longer answer (settings={"max_tokens": …}), then retry the thread'


class RateLimited(ModelError):
    """The provider has had too many requests or tokens from this account, or its credit is used up."""

    what = "takes no more requests for now"

    def __init__(self, model: str, detail: str, *, status_code: int | None = None, **rest: Any) -> None:
        self.transient = status_code != 402 and "credit balance" not in detail  # waiting pays no bill
        super().__init__(model, detail, status_code=status_code, **rest)

    def _next(self) -> str:
        if not self.transient:
            return "Top up the account, then retry the thread"
        return f"The thread asks again {after(self.retry_after)}; RateLimit(...) keeps below the limit"


class ProviderDown(ModelError):
    """The provider did not answer, answered with an error of its own, or stopped in the middle of an answer."""

    what = "did not answer"
    transient = True

    def _next(self) -> str:
        return f"The thread asks again {after(self.retry_after)}"


class ModelTimeout(ModelError):
    """The answer did not come in time."""

    what = "did not answer in time"
    next_step = 'The thread asks again by itself; settings={"timeout": seconds} allows more time'
    transient = True


class InvalidAnswer(ModelError):
    """The model answered, also when it was asked again, with nothing that is among the choices."""

    what = "gave no valid answer"
    next_step = "Make the intents plainer, allow more retries= or use another model, then retry the thread"


def key_variable(provider: str) -> str:
    """The environment variable that holds a provider's key."""
    name = {"google": "GOOGLE_API_KEY", "google-cloud": "GOOGLE_APPLICATION_CREDENTIALS", "bedrock": "AWS_BEARER_TOKEN_BEDROCK"}.get(provider)
    return name or f"{re.sub(r'-(chat|responses)$', '', provider).replace('-', '_').upper()}_API_KEY"


def after(seconds: float | None) -> str:
    """When the thread asks again, and when it no longer does."""
    when = "later each time" if not seconds else f"in {seconds:g} s"
    return f"by itself {when}, unless {TRIES} failures in a row have made it fail; then retry it"


# ---- from an exception of an SDK -----------------------------------------------------------------------------------------------

NAMES: tuple[tuple[type[ModelError], frozenset[str]], ...] = (
    (ModelTimeout, frozenset({"ModelTimeoutError", "ModelRequestTimeout", "APITimeoutError", "TimeoutException", "TimeoutError"})),
    (ContextTooLong, frozenset({"ModelContextWindowExceededError"})),
    (AuthenticationFailed, frozenset({"ModelAuthenticationError", "AuthenticationError", "PermissionDeniedError"})),
    (UnknownModel, frozenset({"ModelNotFoundError", "NotFoundError"})),
    (RateLimited, frozenset({"ModelRateLimitError", "ModelQuotaExceededError", "RateLimitError"})),
    (Refused, frozenset({"ContentFilterError"})),
    (CutOff, frozenset({"OutputTokenLimitExceeded"})),
)
"""Classes of pydantic-ai, openai, anthropic and httpx by name: which of them are installed is not ours to know."""
DOWN = frozenset({"UnexpectedModelBehavior", "ModelAPIError", "APIError", "TransportError", "ConnectionError", "ErrorInside"})
CODES = {
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "too_many_requests", "insufficient_quota", "RESOURCE_EXHAUSTED"), 429),
    **dict.fromkeys(("invalid_api_key", "authentication_error", "UNAUTHENTICATED", "PERMISSION_DENIED"), 401),
    **dict.fromkeys(("model_not_found", "not_found_error", "NOT_FOUND"), 404),
    **dict.fromkeys(("invalid_request_error", "context_length_exceeded", "content_filter", "INVALID_ARGUMENT"), 400),
}
"""The status that an error has when it does not come with one of its own."""
STATUSES: Mapping[int, type[ModelError]] = {
    **dict.fromkeys((401, 403), AuthenticationFailed),
    **dict.fromkeys((402, 429), RateLimited),
    **dict.fromkeys((409, 425), ProviderDown),  # a lock that somebody holds, too early: what the SDKs would repeat
    404: UnknownModel,
    408: ModelTimeout,
}
TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size)|(prompt|input|request|message)s? (is|are) too (long|large)|input token count|too many (input )?tokens"
    r"|number of (input )?tokens( allowed)?\b|reduce the length|(input|prompt) (tokens|length).{0,20}exceed|exceed.{0,20}max_model_len"
    r"|maximum prompt length|prompt token count|model token limit|range of input length|`inputs` tokens|max message tokens|string too long",
    re.IGNORECASE,
)
NEVER_FITS = re.compile("request too large for", re.IGNORECASE)
"""OpenAI's 429 for one request with more tokens than a minute has; other 429s speak of tokens, too."""
NOT_THERE = re.compile(r"not a valid model|model not exist|model\b.{0,80} (does not exist|not found)|(unknown|invalid) model\b", re.IGNORECASE)
FILTERED = re.compile(r"content[_ ](filter|policy|management policy)|responsible.?ai.?policy|safety system|usage polic|invalid_prompt", re.IGNORECASE)


def failure_of(error: BaseException, model: str) -> ModelError | None:
    """The failure that an exception of a model's SDK means; None for what is no provider's doing (a mistake in the program)."""
    if isinstance(error, ModelError | OwnloopError):
        return error if isinstance(error, ModelError) else None
    if isinstance(error, ExceptionGroup):  # every model of a FallbackModel has failed
        found = [failure for one in error.exceptions if (failure := failure_of(one, model)) is not None]
        return next((failure for failure in found if failure.transient), found[-1] if found else None)
    status = _status(error)
    headers, body, detail = lowered(_headers(error)), getattr(error, "body", None), _said(error)
    kind = _kind(error, status, detail)
    if kind is None:
        return None
    return kind(model, detail, status_code=status, retry_after=seconds_to_wait(headers, body), headers=headers)


def _kind(error: BaseException, status: int | None, detail: str) -> type[ModelError] | None:
    names = {one.__name__ for one in type(error).__mro__}
    if "UserError" in names:
        return AuthenticationFailed if "API_KEY" in detail else UnknownModel if "Unknown model" in detail else None
    if "ModelQuotaExceededError" in names:
        return RateLimited
    is_theirs, said = status is not None or bool(names & DOWN), f"{detail} {_code(getattr(error, 'body', None))}"
    if status in (400, 413, 422, 500, None) and is_theirs and (status == 413 or TOO_LONG.search(said)):
        return ContextTooLong
    if status == 429 and NEVER_FITS.search(said):
        return ContextTooLong
    if status in (400, 403, None) and is_theirs and FILTERED.search(said):
        return Refused
    if status in (400, 422) and NOT_THERE.search(detail):
        return UnknownModel
    for kind, known in NAMES:
        if names & known:
            return kind
    if status is not None:
        return STATUSES.get(status) or (ProviderDown if status >= 500 or status < 400 else ModelError)
    if names & DOWN:
        return ProviderDown
    return None


class ErrorInside(Exception):
    """An error that came with HTTP status 200."""

    def __init__(self, body: Json) -> None:
        super().__init__(str(body))
        self.body = body
        error = body["error"] if isinstance(body["error"], dict) else {"message": body["error"]}
        named = [str(error.get(name)) for name in ("code", "status", "type")]
        numbers = [int(one) for one in named if one.isdigit() and 400 <= int(one) < 600]
        self.status_code = next(iter([*numbers, *(CODES[one] for one in named if one in CODES)]), None)


def _status(error: BaseException) -> int | None:
    for place in (error, getattr(error, "response", None)):
        status = getattr(place, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _headers(error: BaseException) -> Mapping[str, str] | None:
    return getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None)


def _said(error: BaseException) -> str:
    """The provider's own words, out of whatever it wraps them in."""
    texts = [text for text in _messages(getattr(error, "body", None)) if text.strip()]
    if texts:
        return texts[0]
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    said = list(dict.fromkeys(str(one).strip().rstrip(".") or type(one).__name__ for one in chain))
    return said[0] if len(said) == 1 else f"{said[0]} ({said[-1]})"


def _code(body: Json) -> str:
    """The provider's word for the kind of error."""
    inner = body.get("error", body) if isinstance(body, dict) else None
    return str(inner.get("code") or "") if isinstance(inner, dict) else ""


def _messages(body: Json) -> Iterator[str]:
    if isinstance(body, str):
        yield body
    elif isinstance(body, list):
        for one in body:
            yield from _messages(one)
    elif isinstance(body, dict):
        inner = [body[name] for name in ("error", "message", "detail", "msg") if body.get(name)]
        for one in inner:
            yield from _messages(one)
