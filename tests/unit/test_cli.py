"""The command line: output for people and for programs, and exit codes that mean something."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import Computed, LLMCache, Secrecy, Usage, fingerprint
from llmcache_fast.cli import main
from llmcache_fast.cli.commands import run
from llmcache_fast.cli.demo import workload
from llmcache_fast.cli.output import Exit, count, duration, size
from tests.servers.redis import RedisServer

REQUEST = {
    "model": "gpt-4o-mini",
    "temperature": 1,
    "stream": True,
    "messages": [{"role": "user", "content": "q"}],
}
SECRET = "the stored answer"


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LLMCACHE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def request_file(tmp_path: Path) -> str:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(REQUEST))
    return str(path)


@pytest.fixture(scope="session")
def tier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A disk tier with one entry."""
    folder = tmp_path_factory.mktemp("tier")

    async def fill() -> None:
        async with LLMCache(tiers=[f"disk://{folder}"]) as cache:
            computed = Computed(SECRET, usage=Usage(10, 5), model="gpt-4o-mini", tags=("doc:7",))
            await cache.set(REQUEST, computed, ttl=3600)
            await cache.set({"kind": "json"}, {"a": [1]}, ttl=None)
            reader = await cache.stream({"kind": "stream"}, _source)
            assert [chunk async for chunk in reader] == [b"one ", b"two"]

    anyio.run(fill)
    return str(folder)


async def _source(recorder: Any) -> None:
    recorder.begin(b"head")
    recorder.write(b"one ")
    recorder.write(b"two")
    recorder.commit()


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_explain(capsys: pytest.CaptureFixture[str], request_file: str) -> None:
    found = json_of(capsys, "explain", request_file, "--profile", "openai.chat")
    assert {row["name"]: row["verdict"] for row in found["fields"]} == {
        "model": "in",
        "temperature": "defaulted",
        "stream": "dropped",
        "messages": "in",
    }
    assert found["fingerprint"] == fingerprint(REQUEST, profile="openai.chat").hex()
    assert run(["explain", request_file]) == Exit.OK
    shown = capsys.readouterr().out
    assert fingerprint(REQUEST).hex() in shown
    assert "generic/drop/stream" in shown
    other = json_of(capsys, "explain", request_file, "--namespace", "n")
    assert other["fingerprint"] == fingerprint(REQUEST, namespace="n").hex()


@pytest.mark.parametrize(
    ("content", "arguments", "word"),
    [
        ("{", [], "not JSON"),
        ("[1, NaN]", [], ""),
        ('{"a": NaN}', [], "NaN"),
        ("{}", ["--profile", "nope"], "nope"),
    ],
)
def test_explain_of_bad_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, arguments: list[str], word: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert run(["explain", str(path), *arguments]) == Exit.USAGE
    said = capsys.readouterr().err
    assert said.startswith("llmcache-fast: ")
    assert word.lower() in said.lower()


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["explain", str(tmp_path / "absent.json")]) == Exit.USAGE
    assert "No such file" in capsys.readouterr().err


def test_get_shows_facts_and_text_only_when_asked(
    capsys: pytest.CaptureFixture[str], request_file: str, tier: str
) -> None:
    facts = json_of(capsys, "get", request_file, "--tier", tier)
    assert facts["state"] == "fresh"
    assert (facts["model"], facts["tags"]) == ("gpt-4o-mini", ["doc:7"])
    assert facts["usage"]["input_tokens"] == 10
    assert "value" not in facts
    by_key = json_of(capsys, "get", fingerprint(REQUEST).hex(), "--tier", f"disk://{tier}", "--value")
    assert by_key["value"] == SECRET
    assert run(["get", request_file, "--tier", tier]) == Exit.OK
    assert SECRET not in capsys.readouterr().out
    assert run(["get", request_file, "--tier", tier, "--value"]) == Exit.OK
    assert capsys.readouterr().out.endswith(SECRET + "\n")


def test_get_of_other_kinds_of_content(capsys: pytest.CaptureFixture[str], tier: str) -> None:
    key = fingerprint({"kind": "json"}).hex()
    found = json_of(capsys, "get", key, "--tier", tier, "--value")
    assert (found["value"], found["fresh_until"]) == ({"a": [1]}, None)
    assert run(["get", key, "--tier", tier, "--value"]) == Exit.OK
    printed = capsys.readouterr().out
    assert printed.endswith('\n{"a":[1]}\n')
    assert "…" not in printed
    key = fingerprint({"kind": "stream"}).hex()
    assert json_of(capsys, "get", key, "--tier", tier, "--value")["value"] == ["one ", "two"]
    assert run(["get", key, "--tier", tier, "--value"]) == Exit.OK
    assert capsys.readouterr().out.endswith("one two\n")


def test_a_miss_exits_with_1(
    capsys: pytest.CaptureFixture[str], request_file: str, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCACHE_TIERS", f"disk://{tier}?budget=1")
    assert json_of(capsys, "get", "ab" * 32, code=Exit.FOUND)["state"] == "miss"
    assert run(["get", request_file, "--namespace", "another"]) == Exit.FOUND
    assert "miss" in capsys.readouterr().out


def test_get_of_another_namespaces_entry(capsys: pytest.CaptureFixture[str], tier: str) -> None:
    assert run(["get", fingerprint(REQUEST).hex(), "--namespace", "another", "--tier", tier]) == Exit.FOUND
    assert "give --namespace" in capsys.readouterr().err


def test_get_without_a_tier_or_with_a_bad_target(
    capsys: pytest.CaptureFixture[str], request_file: str, tier: str, tmp_path: Path
) -> None:
    assert run(["get", request_file]) == Exit.USAGE
    assert run(["get", "abc", "--tier", tier]) == Exit.USAGE
    assert run(["get", request_file, "--tier", str(tmp_path / "none")]) == Exit.FOUND
    assert not (tmp_path / "none").exists()
    said = capsys.readouterr().err
    assert "which tier?" in said
    assert "64 hex digits" in said


def test_get_tells_what_was_invalidated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    async def fill() -> None:
        async with LLMCache(tiers=[f"disk://{tmp_path}"]) as cache:
            for number, tags in enumerate((["a"], ["b"], [])):
                await cache.set({"n": number}, "value", tags=tags)
            await cache.flush()
            await cache.invalidate(tags=["a"])
            await cache.set({"n": 3}, "value", tags=["a"])

    anyio.run(fill)
    states = [
        json_of(capsys, "get", fingerprint({"n": number}).hex(), "--tier", str(tmp_path))["state"]
        for number in range(4)
    ]
    assert states == ["invalidated", "fresh", "fresh", "fresh"]


def test_the_bound_of_a_tier_is_its_own_or_unknown(
    capsys: pytest.CaptureFixture[str], tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounds(target: str) -> tuple[Any, str]:
        checks = {check["name"]: check["detail"] for check in json_of(capsys, "doctor", "--tier", target)}
        return json_of(capsys, "stats", target)["max_bytes"], checks["disk space"]

    stated, shown = bounds(tier)
    assert stated is None, "a folder does not say how large it may grow"
    assert "up to" not in shown
    assert bounds(f"disk://{tier}?max_bytes=2MiB")[0] == 2 << 20
    assert bounds(f"disk://{tier}")[0] == 1 << 30
    monkeypatch.setenv("LLMCACHE_TIERS", f"disk://{tier}?max_bytes=3MiB")
    stated, shown = bounds(tier)
    assert stated == 3 << 20
    assert "up to 3 MiB" in shown


def test_stats_of_a_tier(capsys: pytest.CaptureFixture[str], tier: str, tmp_path: Path) -> None:
    assert json_of(capsys, "stats", tier)["rows"] == 3
    assert run(["stats", f"disk://{tier}"]) == Exit.OK
    assert "rows" in capsys.readouterr().out
    assert run(["stats", str(tmp_path)]) == Exit.FOUND
    assert run(["stats", "http://127.0.0.1:1"]) == Exit.ENVIRONMENT


def test_doctor(capsys: pytest.CaptureFixture[str], tier: str, tmp_path: Path) -> None:
    found = {check["name"]: check for check in json_of(capsys, "doctor", "--tier", f"disk://{tier}")}
    assert {found[name]["result"] for name in ("python", "build", "disk", "disk space")} == {"ok"}
    assert "3 entries" in found["disk"]["detail"]
    as_folder = {check["name"]: check for check in json_of(capsys, "doctor", "--tier", tier)}
    assert as_folder["disk"] == found["disk"]
    assert run(["doctor"]) == Exit.OK
    assert "none configured" in capsys.readouterr().out
    bad = ["--tier", "disk://relative", "--tier", "carrier-pigeon://x", "--tier", "redis://x"]
    problems = [
        check for check in json_of(capsys, "doctor", *bad, code=Exit.FOUND) if check["result"] == "problem"
    ]
    assert len(problems) == 3


def test_doctor_asks_the_servers(
    capsys: pytest.CaptureFixture[str], redis_server: RedisServer, postgres_url: str
) -> None:
    given = [word for url in (redis_server.url, postgres_url) for word in ("--tier", url)]
    found = {check["name"]: check for check in json_of(capsys, "doctor", *given, code=Exit.FOUND)}
    assert found["redis"]["result"] == "ok"
    assert "migrate" in found["postgresql"]["detail"], "the schema is not made by looking"
    run(["migrate", postgres_url])
    capsys.readouterr()
    found = {check["name"]: check for check in json_of(capsys, "doctor", *given)}
    assert found["postgresql"]["result"] == "ok"
    wrong = json_of(capsys, "doctor", "--tier", "ftp://user:secret@host", code=Exit.FOUND)
    assert "secret" not in str(wrong)


def test_doctor_sees_a_foreign_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite3").write_bytes(b"not a database of ours" * 100)
    (tmp_path / "cache.sqlite3").chmod(0o400)
    run(["doctor", "--tier", f"disk://{tmp_path}"])
    assert "Traceback" not in capsys.readouterr().err


def test_wrong_arguments_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nope"], ["explain"], ["demo", "--calls", "0"], ["get", "--tires", "x"]):
        assert run(arguments) == Exit.USAGE
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["get", "abc", "--tier", "TIER"], Exit.USAGE, "64 hex digits"),
        (["stats", "http://127.0.0.1:1"], Exit.ENVIRONMENT, "no demo upstream"),
        (["stats", "/nowhere"], Exit.FOUND, "no disk tier"),
        (["explain", "absent.json"], Exit.USAGE, "No such file"),
        (["explain"], Exit.USAGE, "Missing argument"),
        (["demo", "--calls", "0"], Exit.USAGE, "--calls"),
        (["nope"], Exit.USAGE, "nope"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_json_too_when_asked(
    capsys: pytest.CaptureFixture[str], tier: str, arguments: list[str], code: Exit, word: str
) -> None:
    arguments = [tier if word == "TIER" else word for word in arguments]
    assert run([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["error"]["code"] == code
    assert word in told["error"]["message"]
    assert captured.err == ""


def test_version_and_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == Exit.OK
    assert capsys.readouterr().out == f"llmcache-fast {importlib.metadata.version('llmcache-fast')}\n"
    for arguments in (["-h"], ["get", "-h"]):
        assert run(arguments) == Exit.OK
        assert "--help" in capsys.readouterr().out


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == Exit.OK
    assert "2 wrong arguments or" in capsys.readouterr().out


@pytest.fixture
def upstream_process() -> Iterator[str]:
    command = [sys.executable, "-m", "llmcache_fast.cli", "demo-upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split()[2]
        process.terminate()


def test_demo_upstream_serves_until_it_is_stopped(
    upstream_process: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with urllib.request.urlopen(upstream_process + "/v1/models", timeout=10) as reply:
        assert json.load(reply)["data"]
    assert json_of(capsys, "stats", upstream_process)["by_path"] == {"/v1/models": 1}


def test_demo_upstream_on_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["demo-upstream", "--port", str(taken.getsockname()[1])]) == Exit.ENVIRONMENT
    assert "in use" in capsys.readouterr().err


def test_demo_saves_calls_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--calls", "60", "--latency-ms", "20", "--chunk-ms", "1"]
    report = json_of(capsys, "demo", *options)
    assert report["calls"] == 60
    # The upstream's own count agrees with what the cache says went upstream.
    assert report["upstream_calls"] == report["timings"]["miss"]["calls"] == report["spent"]["calls"]
    assert report["avoided_calls"] == report["saved"]["calls"] == 60 - report["upstream_calls"] > 20
    assert report["saved"]["usage"]["output_tokens"] > 0, "by name"
    assert report["saved"]["micro_usd"] > report["spent"]["micro_usd"] > 0
    assert run(["demo", *options]) == Exit.OK
    shown = capsys.readouterr().out
    for word in ("calls made upstream", "dollars saved", "hit", "miss", "p95"):
        assert word in shown


def test_the_workload_is_reproducible_and_mixed() -> None:
    bursts = workload(300, seed=1)
    assert bursts == workload(300, seed=1) != workload(300, seed=2)
    calls = [call for burst in bursts for call in burst]
    assert len(calls) == 300
    assert {call.stream for call in calls} == {call.tools for call in calls} == {True, False}
    assert len({call.question for call in calls}) < 60
    assert max(map(len, bursts)) > 1


def test_without_its_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main() == Exit.ENVIRONMENT
    assert capsys.readouterr().err == "llmcache-fast needs rich: pip install 'llmcache-fast[cli]'\n"


def test_numbers_for_people() -> None:
    assert [duration(s) for s in (5e-6, 0.00042, 0.31, 1.24)] == ["5.0 us", "0.42 ms", "310 ms", "1.2 s"]
    assert [size(n) for n in (12, 2048, 3 << 30, 5 << 40)] == ["12 B", "2.0 KiB", "3.0 GiB", "5.0 TiB"]
    assert count(1234567) == "1,234,567"


@pytest.mark.parametrize("address", ["redis://u:hush@h/0,postgresql://u:hush@h/d", "postgresql://u:hush@h/d"])
def test_an_address_with_a_password_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("LLMCACHE_TIERS", address)
    assert run(["get", "0" * 64]) == Exit.ENVIRONMENT, "no server is there, so nothing is known"
    assert run(["stats", address]) in (Exit.ENVIRONMENT, Exit.USAGE)
    printed = capsys.readouterr()
    assert "postgres" in printed.err
    assert "hush" not in printed.out + printed.err


async def _store(tiers: list[str], secrecy: Secrecy | None) -> None:
    async with LLMCache(tiers=tiers, secrecy=secrecy) as cache:
        for number, tags in enumerate((["a"], ["b"])):
            await cache.set({"n": number}, SECRET, tags=tags)
        await cache.flush()
        await cache.invalidate(tags=["a"])


@pytest.mark.parametrize("blinding", [None, "blinding"])
def test_get_looks_into_every_tier_with_the_keys_of_the_environment(
    capsys: pytest.CaptureFixture[str],
    redis_server: RedisServer,
    redis_prefix: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blinding: str | None,
) -> None:
    redis = f"{redis_server.url}?prefix={redis_prefix}"
    named = {name: os.urandom(32).hex() for name in ("LLMCACHE_KEYS", "LLMCACHE_BLINDING")}
    variables = {"LLMCACHE_KEYS": f"one={named['LLMCACHE_KEYS']}"}
    if blinding:
        variables["LLMCACHE_BLINDING"] = named["LLMCACHE_BLINDING"]
    tiers = [f"disk://{tmp_path}", redis, postgres_url]
    anyio.run(_store, tiers, Secrecy.from_environment(variables))
    keys = [fingerprint({"n": number}).hex() for number in range(2)]
    if not blinding:
        assert run(["get", keys[1], "--tier", redis]) == Exit.FOUND
        assert "give the keys by LLMCACHE_KEYS_FILE" in capsys.readouterr().err
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # Each tier by itself; the last one keeps the markers, so it stands in every list.
    for upper in ([tiers[0]], [redis], []):
        monkeypatch.setenv("LLMCACHE_TIERS", ",".join([*upper, postgres_url]))
        found = [json_of(capsys, "get", key, "--value") for key in keys]
        assert [each["state"] for each in found] == ["invalidated", "fresh"]
        assert {each["value"] for each in found} == {SECRET}
        where = (upper or [postgres_url])[0].partition(":")[0]
        assert {each["tier"] for each in found} == {where.replace("postgresql", "postgres")}
    assert json_of(capsys, "get", "ab" * 32, code=Exit.FOUND)["state"] == "miss"
    monkeypatch.setenv("LLMCACHE_KEYS", "one=short")
    assert run(["get", keys[0]]) == Exit.USAGE


def test_stats_of_servers(
    capsys: pytest.CaptureFixture[str], redis_server: RedisServer, redis_prefix: str, postgres_url: str
) -> None:
    redis = f"{redis_server.url}?prefix={redis_prefix}"
    assert run(["stats", postgres_url]) == Exit.ENVIRONMENT, "looking makes no tables"
    assert "migrate" in capsys.readouterr().err
    anyio.run(_store, [redis], None)
    anyio.run(_store, [postgres_url], None)
    assert json_of(capsys, "stats", redis) == {"rows": 2, "leases": 0, "namespaces": 1, "partitions": 0}
    counted = json_of(capsys, "stats", postgres_url)
    assert counted.pop("bytes") > 0
    assert counted == {"rows": 2, "expired": 0, "namespaces": 1, "markers": 1, "leases": 0}
    assert run(["stats", f"{redis},{postgres_url}"]) == Exit.USAGE
    assert run(["stats", postgres_url]) == Exit.OK
    assert "rows" in capsys.readouterr().out
