"""The commands and their options; what they do is in the files beside this one."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated, Any

import anyio
import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from llmcache_fast.cli import dead_letters, output, semantic
from llmcache_fast.cli.check import check
from llmcache_fast.cli.erasing import erase, invalidate
from llmcache_fast.cli.migrate import migrate
from llmcache_fast.cli.output import CODES, CommandError, Exit, console, fail, stop, table, write_json
from llmcache_fast.cli.search import search

app = typer.Typer(
    help=f"Look into the cache, try it, check a machine for it.\n\n{CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(semantic.app, name="semantic")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Profile = Annotated[
    str,
    typer.Option(help="Rules for the request: generic, openai.chat, openai.responses, anthropic.messages."),
]
Namespace = Annotated[str, typer.Option(help="The cache's namespace.")]
Tier = Annotated[
    str,
    typer.Option(
        envvar="LLMCACHE_TIERS",
        help="The cache's tiers in its order: addresses parted by commas, or the folder of a disk tier.",
    ),
]


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=arguments, prog_name="llmcache-fast", standalone_mode=False)
    except CommandError as problem:
        return fail(problem.code, str(problem), as_json=as_json)
    except typer.Exit as done:
        return done.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return fail(Exit.ENVIRONMENT, "interrupted", as_json=as_json)
    except Exception as problem:
        # Wrong arguments: typer shows them itself only in its standalone mode, whose exit codes are not ours.
        show = getattr(problem, "show", None)
        if show is None:
            raise
        # Without arguments typer shows the help, which is its message.
        message = getattr(problem, "format_message", lambda: "")()
        if as_json and message:
            return fail(Exit.USAGE, message, as_json=True)
        show()
        return Exit.USAGE
    return int(code or 0)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"llmcache-fast {importlib.metadata.version('llmcache-fast')}\n")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Only `--version` stands before a command."""


@app.command()
def demo(
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="Calls to make.")] = 300,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Bursts in flight at once.")] = 12,
    latency_ms: Annotated[float, typer.Option(min=0, help="Upstream's time to the first byte.")] = 350.0,
    chunk_ms: Annotated[float, typer.Option(min=0, help="Upstream's time between two chunks.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Another seed is another workload.")] = 0,
    json: Json = False,
) -> int:
    """Drive the real OpenAI SDK against a local upstream, through the cache, and show what was saved."""
    try:
        import openai  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as missing:
        stop(Exit.ENVIRONMENT, f"the demo needs {missing.name}: pip install 'llmcache-fast[demo]'")
    from llmcache_fast import LLMCache
    from llmcache_fast.cli import demo as workload
    from llmcache_fast.cli.child import UpstreamProcess
    from llmcache_fast.cli.inspection import statistics

    async def main(url: str, advance: workload.Progress) -> workload.Report:
        async def upstream_calls() -> int:
            found = await anyio.to_thread.run_sync(statistics, url)
            return int(found["requests"])

        async with LLMCache() as cache:
            return await workload.run(
                cache, url, upstream_calls, calls=calls, concurrency=concurrency, seed=seed, progress=advance
            )

    with UpstreamProcess(f"--latency-ms={latency_ms}", f"--chunk-ms={chunk_ms}") as upstream:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console(), disable=json, transient=True) as progress:
            task = progress.add_task("calling the model through the cache", total=calls)
            report = anyio.run(main, upstream.url, lambda: progress.advance(task))
    if json:
        write_json(workload.plain(report))
    else:
        _show_demo(report)
    return Exit.OK


def _show_demo(report: Any) -> None:
    from llmcache_fast.insight.cost import dollars

    screen = console()
    share = report.avoided_calls / report.calls
    rows = [
        ("calls by the service", output.count(report.calls), ""),
        ("calls made upstream", output.count(report.upstream_calls), "as the upstream counted them"),
        ("calls avoided", output.count(report.avoided_calls), f"{share:.0%}"),
        ("tokens paid", output.count(report.spent.usage.input_tokens + report.spent.usage.output_tokens), ""),
        (
            "tokens saved",
            output.count(report.saved.usage.input_tokens + report.saved.usage.output_tokens),
            "",
        ),
        ("dollars paid", dollars(report.spent.micro_usd), f"prices of {report.prices_dated}"),
        ("dollars saved", dollars(report.saved.micro_usd), ""),
    ]
    screen.print(
        table(f"{report.calls} calls in {report.seconds:.1f} s", ["what", "how much ", "note"], rows)
    )
    meaning = {
        "hit": "from the cache",
        "hit, alone": "from the cache, one caller",
        "look-up": "the cache's own part of a hit",
        "joined": "waited for another caller's",
        "miss": "went upstream",
        "bypass": "not cacheable",
        "stale": "from the cache, refreshed",
    }
    waits = [
        (
            status,
            output.count(timing.calls),
            output.duration(timing.p50),
            output.duration(timing.p95),
            output.duration(timing.p99),
            meaning.get(status, ""),
        )
        for status, timing in report.timings.items()
    ]
    columns = ["status", "calls ", "p50 ", "p95 ", "p99 ", "meaning"]
    screen.print(table("latency of a whole answer as the SDK's caller sees it", columns, waits))


@app.command(name="demo-upstream")
def demo_upstream(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="Time to the first byte.")] = 0.0,
    chunk_ms: Annotated[float, typer.Option(min=0, help="Time between two chunks of a stream.")] = 0.0,
    error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests answered with 500.")
    ] = 0.0,
    rate_limit: Annotated[
        float, typer.Option(min=0, help="Requests a second before 429; 0 is no limit.")
    ] = 0.0,
    api_key: Annotated[str, typer.Option(envvar="DEMO_API_KEY", help="The only key accepted.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the error rate.")] = 0,
    json: Json = False,
) -> int:
    """Serve the OpenAI and Anthropic protocols on loopback, with deterministic answers and faults on request.

    Paths: /v1/chat/completions, /v1/responses, /v1/messages, /v1/embeddings, /v1/models; counters at
    GET /stats, cleared by POST /reset. A model named `demo:CONTROL,...` or the header `x-demo` asks for
    error-S, flaky-S-N, cut, cut-event, cut-end, stream-error, length, filter, refusal, empty, no-tools, crlf,
    gzip, slow-MS, drip-MS, words-N.
    """
    try:
        from llmcache_fast.cli.upstream import UpstreamOptions
        from llmcache_fast.cli.upstream.server import bind, serve_forever
    except ModuleNotFoundError as missing:
        stop(Exit.ENVIRONMENT, f"the demo upstream needs {missing.name}: pip install 'llmcache-fast[demo]'")
    try:
        listener = bind(port)
    except OSError as problem:
        stop(Exit.ENVIRONMENT, f"port {port}: {problem.strerror}")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if json:
        write_json({"url": url, "base_url": f"{url}/v1"})
    else:
        console().print(
            f"listening on {url}  (OpenAI base_url {url}/v1, Anthropic base_url {url}; Ctrl-C ends)"
        )
    sys.stdout.flush()
    options = UpstreamOptions(latency_ms, chunk_ms, error_rate, rate_limit, api_key or None, seed)
    serve_forever(options, listener)
    return Exit.OK


@app.command()
def stats(
    target: Annotated[
        str, typer.Argument(help="A tier's address, a disk tier's folder, or a demo upstream's URL.")
    ],
    json: Json = False,
) -> int:
    """Show the counters of a tier, or of a running demo upstream. A server walks over all it has for them.

    A disk tier's `max_bytes` is not in its folder: it is shown for an address, or when LLMCACHE_TIERS names
    the folder.
    """
    from llmcache_fast.cli.inspection import statistics

    found = statistics(target)
    if json:
        write_json(found)
    else:
        rows = [
            (name.replace("_", " "), output.count(value) if isinstance(value, int) else str(value))
            for name, value in found.items()
            if value is not None
        ]
        # An address may hold a password.
        console().print(table(target.rpartition("@")[2].partition("?")[0], ["what", "value "], rows))
    return Exit.OK


@app.command()
def explain(
    file: Annotated[str, typer.Argument(help="A request as JSON, or - for standard input.")],
    profile: Profile = "generic",
    namespace: Namespace = "default",
    json: Json = False,
) -> int:
    """Show which fields of a request count for its fingerprint, and which rule drops the others."""
    from llmcache_fast.cli.inspection import explained, read_request

    found = explained(read_request(file), profile=profile, namespace=namespace)
    if json:
        write_json(found)
    else:
        rows = [(field.name, field.verdict, field.rule) for field in found["fields"]]
        console().print(
            table(f"profile {profile}, namespace {namespace}", ["field", "verdict", "rule"], rows)
        )
        console().print(f"fingerprint {found['fingerprint']}")
    return Exit.OK


@app.command()
def get(
    target: Annotated[str, typer.Argument(help="A fingerprint (64 hex digits), a request as JSON, or -.")],
    tier: Tier = "",
    profile: Profile = "generic",
    namespace: Namespace = "default",
    value: Annotated[bool, typer.Option("--value", help="Print the stored answer too.")] = False,
    json: Json = False,
) -> int:
    """Show the facts of a stored entry, and its text only with --value. A miss exits with 1.

    Sealed records are opened with the keys that LLMCACHE_KEYS_FILE and the like give, as in a program.
    """
    from llmcache_fast.cli import inspection
    from llmcache_fast.cli.tiers import tiers_at
    from llmcache_fast.tiers.base import clock_micros

    if not tier:
        stop(Exit.USAGE, "which tier? give --tier with an address or a folder, or set LLMCACHE_TIERS")
    key = inspection.key_of(target, profile=profile, namespace=namespace)
    tiers = tiers_at(tier)
    found = inspection.entry_in(tiers, namespace, key)
    if found is None:
        if json:
            write_json({"fingerprint": key.hex(), "namespace": namespace, "state": "miss"})
        else:
            console().print(f"miss: {key.hex()} is not in {', '.join(each.name for each in tiers)}")
        return Exit.FOUND
    entry, where, valid = found
    facts = inspection.facts_of(entry, tier=where, valid=valid, now=clock_micros())
    if value:
        facts["value"] = inspection.value_of(entry)
    if json:
        write_json(facts)
        return Exit.OK
    answer = facts.pop("value", None)
    console().print(
        table("entry", ["fact", "value"], [(name, "" if x is None else str(x)) for name, x in facts.items()])
    )
    if value:
        parts = answer if isinstance(answer, list) and entry.content == "stream" else [answer]
        for part in parts:
            sys.stdout.write(part if isinstance(part, str) else msgspec.json.encode(part).decode())
        sys.stdout.write("\n")
    return Exit.OK


@app.command()
def doctor(
    tier: Annotated[
        list[str] | None, typer.Option(help="A disk tier, a folder or disk:///path; may be repeated.")
    ] = None,
    json: Json = False,
) -> int:
    """Check the build, the processor, the installed clients and each disk tier."""
    from llmcache_fast.cli.doctor import Check, checks, configured

    found: list[Check] = []
    styles = {"ok": "green", "note": "cyan", "problem": "bold red", "missing": "bold red"}
    for one in checks(configured(tier or [])):
        found.append(one)
        if not json:
            style = styles[one.result]
            console().print(f"[{style}]{one.result:8}[/{style}] {one.name}: ", end="")
            console().print(one.detail, markup=False)
    if json:
        write_json(found)
    results = {one.result for one in found}
    if "missing" in results:
        return Exit.ENVIRONMENT
    return Exit.FOUND if "problem" in results else Exit.OK


app.command()(migrate)
app.command()(search)
app.command()(invalidate)
app.command()(erase)
app.command()(check)
