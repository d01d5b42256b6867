"""The package imports and does its main job with no extra installed."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

PROGRAM = '''
import sys

ALLOWED = set({allowed!r})


class Absent:
    """Whatever is neither of the standard library nor asked for is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ALLOWED:
            return None
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent)
for installed in ("rich", "httpx", "openai"):
    try:
        __import__(installed)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{{installed}} could be imported: the test blocks nothing")

{program}
'''

MAIN_JOB = """
import anyio
from llmcache_fast import LLMCache


async def main() -> None:
    async with LLMCache() as cache:

        async def compute() -> str:
            return "an answer"

        request = {"model": "m", "messages": [{"role": "user", "content": "a question"}]}
        for _ in range(2):
            assert await cache.get_or_compute(request, compute) == "an answer"


anyio.run(main)
print("done")
"""


def runtime_modules() -> set[str]:
    """Top-level modules of what the package requires without extras, and of what that requires in turn."""
    wanted, seen = ["llmcache-fast"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in importlib.metadata.requires(name) or []:
            if "extra ==" not in line and (required := re.match(r"[A-Za-z0-9._-]+", line)):
                try:
                    importlib.metadata.distribution(required.group())
                except importlib.metadata.PackageNotFoundError:  # for another Python or system
                    continue
                wanted.append(required.group().lower())
    tops = importlib.metadata.packages_distributions()
    canonical = {re.sub(r"[-_.]+", "-", name) for name in seen}
    return {
        top
        for top, owners in tops.items()
        if any(re.sub(r"[-_.]+", "-", owner).lower() in canonical for owner in owners)
    } | {"llmcache_fast"}


def run(program: str) -> subprocess.CompletedProcess[str]:
    source = PROGRAM.format(allowed=sorted(runtime_modules()), program=program)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)


def test_the_main_job_needs_no_extra() -> None:
    result = run(MAIN_JOB)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr


def test_integrations_import_without_their_clients() -> None:
    program = "import llmcache_fast.integrations, json, sys; print(json.dumps(sorted(sys.modules)))"
    result = run(program)
    assert result.returncode == 0, result.stderr
    loaded = {name.partition(".")[0] for name in json.loads(result.stdout)}
    assert loaded.isdisjoint({"httpx", "httpx2", "openai", "anthropic"})


def test_embedders_without_a_library_of_their_own_work_without_any() -> None:
    program = """
import anyio
from llmcache_fast.semantic import CallableEmbedder, MiniLMEmbedder, NGramEmbedder, OpenAIEmbedder
from llmcache_fast.semantic.embedding import EmbeddingActor


async def main() -> None:
    async with anyio.create_task_group() as group:
        actor = EmbeddingActor(NGramEmbedder())
        await group.start(actor.run)
        assert len(await actor.vector("a question")) == 4 * 512
        group.cancel_scope.cancel()


anyio.run(main)
print("done")
"""
    result = run(program)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr


def test_the_package_loads_no_embedder() -> None:
    result = run("import llmcache_fast, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert result.returncode == 0, result.stderr
    assert not [
        name for name in json.loads(result.stdout) if name.startswith("llmcache_fast.semantic.embedders.")
    ]


def test_the_command_line_names_the_extra_it_needs() -> None:
    result = run("import llmcache_fast.cli; sys.exit(llmcache_fast.cli.main())")
    assert result.returncode not in (0, None)
    assert "llmcache-fast[cli]" in result.stderr
    assert "Traceback" not in result.stderr
