"""`llmcache-fast semantic calibrate` and `forecast`: tables, JSON, pictures, and lines that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmcache_fast.cli import curves, semantic
from llmcache_fast.cli.commands import run
from llmcache_fast.cli.output import Exit
from llmcache_fast.semantic.prior import Prior

SECRET = "a secret question"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def written(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """A hundred that differ in spelling alone, and a hundred that have little in common."""
    same = [{"a": f"{SECRET} number {n}", "b": f"{SECRET}, number {n}!", "same": True} for n in range(100)]
    other = [
        {"a": f"{SECRET} number {n}", "b": f"{n * 7919} other things", "same": False} for n in range(100)
    ]
    return written(tmp_path / "pairs.jsonl", same + other)


def request(text: str, cls: str | None, partition: str = "") -> dict[str, str]:
    return {"text": text, "partition": partition, **({} if cls is None else {"cls": cls})}


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert run(["semantic", *arguments, "--embedder", "ngram", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_calibrate_counts_pairs_at_each_threshold(capsys: pytest.CaptureFixture[str], pairs: str) -> None:
    found = json_of(capsys, "calibrate", pairs, "--budget", "0.05")
    assert (found["pairs"], found["without_vector"]) == (200, 0)
    assert found["points"][0]["threshold"] == 0.99
    first = next(point for point in found["points"] if point["hits"]["count"] == 100)
    assert first["false_hits"]["count"] == 0
    assert first["wrong"]["high"] < 0.05
    assert found["threshold"] is not None


def test_calibrate_shows_a_table_without_the_text(capsys: pytest.CaptureFixture[str], pairs: str) -> None:
    assert run(["semantic", "calibrate", pairs, "--embedder", "ngram", "--budget", "0.05"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "200 pairs, 100 the same, by character n-grams" in shown
    assert "keeps 5.00% wrong a hit at 95.0% confidence" in shown
    assert SECRET not in shown


def test_no_threshold_for_the_budget_exits_with_1(capsys: pytest.CaptureFixture[str], pairs: str) -> None:
    found = json_of(capsys, "calibrate", pairs, "--budget", "0.001", code=Exit.FOUND)
    assert found["threshold"] is None


def test_calibrate_writes_what_a_budget_may_know(
    capsys: pytest.CaptureFixture[str], pairs: str, tmp_path: Path
) -> None:
    json_of(capsys, "calibrate", pairs, "--budget", "0.05", "--out", str(tmp_path / "prior.json"))
    prior = Prior.load((tmp_path / "prior.json").read_bytes())
    assert (100.0, 0.0) in prior.answers


def test_forecast_follows_the_log_within_partitions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = written(
        tmp_path / "log.jsonl",
        [
            request("When does water boil?", "boil", "one"),
            request("when does water boil", "boil", "one"),
            request("When does water boil?", "boil", "one"),
            request("When does water boil!", "other answer", "one"),
            request("When does water boil?", "boil", "two"),
        ],
    )
    found = json_of(capsys, "forecast", log, code=Exit.FOUND)
    assert (found["requests"], found["repeated"], found["answers_known"]) == (5, 1, True)
    strictest = next(point for point in found["points"] if point["hits"]["count"])
    assert (strictest["hits"]["count"], strictest["hits"]["of"]) == (2, 5)
    assert (strictest["wrong"]["count"], strictest["wrong"]["of"]) == (1, 2)


def test_forecast_without_answers_tells_hits_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = written(tmp_path / "log.jsonl", [request(SECRET, None), request(SECRET.upper(), None)])
    found = json_of(capsys, "forecast", log)
    assert not found["answers_known"]
    assert found["points"][0]["wrong"]["share"] is None
    assert run(["semantic", "forecast", log, "--embedder", "ngram"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "how many of these hits are wrong is not known" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("command", "content", "says"),
    [
        ("calibrate", f'{{"a": "{SECRET}", "b": "y", "same": true}}\n{{"a": "{SECRET}"}}\n', "line 2"),
        ("calibrate", f'{{"a": "{SECRET}", "b": "y", "same": "yes"}}\n', "line 1"),
        ("calibrate", f'\n\n{{"a": "{SECRET}\n', "line 3"),
        ("calibrate", "", "has no lines"),
        ("forecast", f'{{"question": "{SECRET}"}}\n', "line 1"),
        ("forecast", "\n", "has no lines"),
    ],
)
def test_a_bad_line_is_named_and_not_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, content: str, says: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    assert run(["semantic", command, str(path), "--embedder", "ngram"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert str(path) in said
    assert says in said
    assert "must be as {" in said
    assert SECRET not in said


def test_a_line_that_is_no_text_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n')
    assert run(["semantic", "forecast", str(path), "--embedder", "ngram"]) == Exit.USAGE
    assert "line 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--embedder", "nope"], Exit.USAGE, "minilm, ngram or onnx:FOLDER"),
        (["--embedder", "onnx:"], Exit.USAGE, "minilm, ngram or onnx:FOLDER"),
        (["--embedder", "onnx:/nowhere"], Exit.ENVIRONMENT, "/nowhere"),
        (["--plot", "picture.gif"], Exit.USAGE, ".png or .svg"),
        (["--plot", "/nowhere/picture.png"], Exit.USAGE, "no such folder"),
        (["--budget", "2"], Exit.USAGE, "budget"),
    ],
)
def test_wrong_arguments(
    capsys: pytest.CaptureFixture[str], pairs: str, arguments: list[str], code: Exit, says: str
) -> None:
    assert run(["semantic", "calibrate", pairs, *arguments]) == code
    assert says in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["semantic", "calibrate", "/nowhere/pairs.jsonl", "--embedder", "ngram"]) == Exit.USAGE
    assert "/nowhere/pairs.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "head"), [("curves.png", b"\x89PNG"), ("curves.svg", b"<?xml")])
def test_both_curves_are_drawn(
    capsys: pytest.CaptureFixture[str], pairs: str, tmp_path: Path, name: str, head: bytes
) -> None:
    pytest.importorskip("matplotlib")
    json_of(capsys, "calibrate", pairs, "--budget", "0.05", "--plot", str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(head)


def test_without_the_library_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], pairs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda _name: None)
    monkeypatch.setattr(semantic, "_embedder", lambda _which: pytest.fail("it worked before it looked"))
    assert run(["semantic", "calibrate", pairs, "--plot", "picture.png"]) == Exit.ENVIRONMENT
    said = capsys.readouterr().err
    assert "pip install 'llmcache-fast[plot]'" in said
    assert said.count("\n") == 1
