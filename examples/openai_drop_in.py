"""The OpenAI SDK with a cache beneath it. Try it without an account:

llmcache-fast demo-upstream --port 8123 &
OPENAI_BASE_URL=http://127.0.0.1:8123/v1 OPENAI_API_KEY=none python examples/openai_drop_in.py
"""

import anyio
from openai import AsyncOpenAI

from llmcache_fast import LLMCache
from llmcache_fast.integrations import wrap


async def main() -> None:
    async with LLMCache(ttl=3600) as cache, wrap(AsyncOpenAI(), cache) as client:
        for _ in range(2):
            reply = await client.chat.completions.with_raw_response.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "Why is the sky blue?"}]
            )
            print(reply.headers["x-llmcache"], reply.elapsed, reply.parse().choices[0].message.content)


anyio.run(main)
