"""A FastAPI service whose workers share one cache. Try it without an account:

llmcache-fast demo-upstream --port 8123 --latency-ms 500 &
export OPENAI_BASE_URL=http://127.0.0.1:8123/v1 OPENAI_API_KEY=none
LLMCACHE_TIERS=redis://127.0.0.1:6379/0,postgresql://127.0.0.1/llm uvicorn fastapi_service:app --workers 4
curl -X POST 'http://127.0.0.1:8000/answer?question=Why+is+the+sky+blue'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

from llmcache_fast import LLMCache
from llmcache_fast.integrations import wrap


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One cache a worker, opened after the fork; tiers and all else come from `LLMCACHE_*`."""
    async with LLMCache.from_env(profile="openai.chat") as cache, AsyncOpenAI() as plain:
        app.state.cache = cache
        app.state.client = wrap(plain, cache)
        yield


app = FastAPI(lifespan=lifespan)


def cached_client(request: Request) -> AsyncOpenAI:
    client: AsyncOpenAI = request.app.state.client
    return client


Client = Annotated[AsyncOpenAI, Depends(cached_client)]


@app.post("/answer")
async def answer(question: str, client: Client) -> dict[str, str]:
    reply = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": question}]
    )
    return {"answer": reply.choices[0].message.content or ""}


@app.post("/stream")
async def stream(question: str, client: Client) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        chunks = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": question}], stream=True
        )
        async for chunk in chunks:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return StreamingResponse(words(), media_type="text/plain")


@app.post("/documents/{document}/changed")
async def changed(document: str, request: Request) -> None:
    """All that was answered from a document is computed anew."""
    await request.app.state.cache.invalidate(tags=[f"doc:{document}"])


@app.get("/cache")
async def figures(request: Request) -> dict[str, float]:
    stats = request.app.state.cache.stats()
    return {"hit_rate": stats.hit_rate, "entries": stats.memory.entries, "computations": stats.computations}
