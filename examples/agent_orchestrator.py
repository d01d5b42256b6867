"""Hundreds of agents, in one process or in several, that pay for each distinct step once.

LLMCACHE_TIERS=redis://127.0.0.1:6379/0 python agent_orchestrator.py --tasks 300

Run it in several terminals at once: together they compute what one would.
"""

import argparse
from typing import Any

import anyio

from llmcache_fast import Computed, LLMCache, Usage

SYSTEM = "You are a careful analyst. " * 200


async def model(request: dict[str, Any]) -> Computed[str]:
    """Stands for the provider: put your SDK's call here."""
    await anyio.sleep(0.2)
    text = f"step {len(request['messages'])} done"
    return Computed(text, usage=Usage(input_tokens=1500, output_tokens=20), model="gpt-4o-mini")


async def agent(cache: LLMCache, task: int, steps: int) -> None:
    """One agent: a conversation that grows. Its messages are kept as objects, so they are hashed once."""
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Analyse file {task % 10}"},
    ]
    for _ in range(steps):
        request = {"model": "gpt-4o-mini", "messages": messages}
        reply = await cache.get_or_compute(
            request,
            lambda request=request: model(request),
            tags=[f"file:{task % 10}"],
            label=f"analysis/{task % 10}",
        )
        messages = [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": "Go on"}]


async def main(tasks: int, steps: int) -> None:
    async with LLMCache.from_env(profile="openai.chat", ttl=None) as cache:
        async with anyio.create_task_group() as group:
            for task in range(tasks):
                group.start_soon(agent, cache, task, steps)
        stats = cache.stats()
    print(f"{tasks * steps} steps, {stats.computations} computed here, {stats.saved_usd:.4f} USD saved")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    anyio.run(main, arguments.tasks, arguments.steps)
