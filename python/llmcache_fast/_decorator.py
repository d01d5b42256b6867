"""`cache.cached`: functions whose answers are cached by their identity and arguments."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from llmcache_fast._errors import ConfigurationError
from llmcache_fast._options import UNSET

T = TypeVar("T")


class _Cache(Protocol):
    @property
    def get_or_compute(self) -> Callable[..., Awaitable[Any]]: ...

    @property
    def fingerprint(self) -> Callable[..., bytes]: ...

    @property
    def invalidate(self) -> Callable[..., Awaitable[Any]]: ...


class Cached(Generic[T]):
    """A cached function. Call it as the function; `request(...)` gives what its entry is kept under."""

    def __init__(
        self,
        cache: _Cache,
        function: Callable[..., Awaitable[T]],
        *,
        label: str | None = None,
        version: str | int | None = None,
        ignore: Sequence[str] = (),
        question: str | None = None,
        type: Any = UNSET,
        **options: Any,
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"cached: {function!r} is not an async function")
        self._cache = cache
        self._function = function
        self._signature = inspect.signature(function)
        unknown = set(ignore) - self._signature.parameters.keys()
        if isinstance(ignore, str) or unknown:
            raise ConfigurationError(f"ignore: {ignore!r} must be a list of the function's arguments")
        if question is not None and question not in self._signature.parameters:
            raise ConfigurationError(f"question: {question!r} is none of the function's arguments")
        self._question = question
        self._ignore = frozenset(ignore)
        self._label = label
        self._version = version
        self._type = _answer_type(function) if type is UNSET else type
        self._options = options
        functools.update_wrapper(self, function)

    def request(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The request of a call: for `get`, `set`, `invalidate`, `delete` and `expire`."""
        request: dict[str, Any] = {
            "function": f"{self._function.__module__}.{self._function.__qualname__}",
            "arguments": self._arguments(args, kwargs),
        }
        if self._version is not None:
            request["version"] = self._version
        return request

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[T]:
        options = dict(self._options)
        if self._label is not None:
            options["label"] = self._label.format_map(self._arguments(args, kwargs))

        async def compute() -> T:
            return await self._function(*args, **kwargs)

        request = self.request(*args, **kwargs)
        if self._question is not None and isinstance(text := request["arguments"].get(self._question), str):
            rest = {**request, "arguments": {**request["arguments"], self._question: None}}
            options["question"] = (text, rest)
        return self._cache.get_or_compute(request, compute, type=self._type, **options)

    async def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Invalidate the entry of one call."""
        return await self._cache.invalidate(self.request(*args, **kwargs))

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """As a method: `self` is an argument like the others; name it in `ignore` if it does not count."""
        return self if instance is None else functools.partial(self, instance)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if name not in self._ignore}


def _answer_type(function: Callable[..., Any]) -> Any:
    """The annotated type of the answer; None (as it is) without one, or when it says nothing."""
    try:
        annotated = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        # A name that is only imported for type checkers.
        annotated = None
    return None if annotated in (Any, object, str, bytes, type(None)) else annotated


def cached(cache: _Cache, function: Any = None, /, **options: Any) -> Any:
    """See `LLMCache.cached`."""
    if function is not None:
        return Cached(cache, function, **options)
    return lambda function: Cached(cache, function, **options)
