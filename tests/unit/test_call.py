"""Calling what computes: with the context it asks for, or without."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast._call import Context, call

CONTEXT = Context(bytes(32), stale="old")


async def nothing() -> str:
    return "computed"


async def told(context: Context) -> Any:
    return context.stale


async def optional(retries: int = 3) -> int:
    return retries


class Model:
    async def __call__(self, context: Context) -> bytes:
        return context.fingerprint


@pytest.mark.parametrize(
    ("compute", "value"), [(nothing, "computed"), (told, "old"), (optional, 3), (Model(), bytes(32))]
)
async def test_it_is_told_what_it_asks_for(compute: Any, value: Any, anyio_backend: str) -> None:
    assert await call(compute, CONTEXT) == value


async def test_what_is_no_async_callable_is_said_to_be_none(anyio_backend: str) -> None:
    with pytest.raises(TypeError, match="returned a str, no awaitable"):
        await call(lambda: "a prompt", CONTEXT)  # type: ignore[arg-type,return-value]
