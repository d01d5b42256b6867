"""`semantic`: what matching by meaning would do with questions of yours, before it is switched on.

No text of a question is printed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from operator import mul
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from llmcache_fast import _core
from llmcache_fast._errors import ConfigurationError, EmbeddingError
from llmcache_fast.cli import output
from llmcache_fast.cli.curves import draw, drawing
from llmcache_fast.cli.output import Exit, console, stop, table, write_json
from llmcache_fast.semantic.embedder import Embedder, vectors_of
from llmcache_fast.semantic.forecast import Forecast, Line, Share, keeps, of_pairs, prior_of

app = typer.Typer(
    help="What matching by meaning would do with your questions, before it is switched on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_BATCH = 256
"""Texts that an embedder is given at once."""
_INDEX_BYTES = 4 << 30
"""A bound that no log reaches: two million questions with MiniLM."""

WhichEmbedder = Annotated[
    str, typer.Option("--embedder", help="minilm, ngram (spelling only), or onnx:FOLDER.")
]
Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")]
BudgetShare = Annotated[
    float, typer.Option("--budget", min=0.0001, max=0.5, help="The share of wrong answers to keep below.")
]
Plot = Annotated[Path | None, typer.Option(help="Draw both curves into this .png or .svg.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class _Pair(msgspec.Struct):
    a: str
    b: str
    same: bool


class _Request(msgspec.Struct):
    text: str
    partition: str = ""
    cls: str | int | None = None
    answer: str | None = None


_Read = TypeVar("_Read", _Pair, _Request)


@app.command()
def calibrate(
    pairs: Annotated[Path, typer.Argument(help='Lines of {"a": ..., "b": ..., "same": true or false}.')],
    embedder: WhichEmbedder = "minilm",
    budget: BudgetShare = 0.02,
    confidence: Confidence = 0.95,
    out: Annotated[Path | None, typer.Option(help="Write what a budget may know beforehand.")] = None,
    plot: Plot = None,
    json: Json = False,
) -> int:
    """Show how many rewordings each threshold finds in labelled pairs, and how many others it takes for one.

    No threshold that keeps the budget exits with 1.
    """
    _check_plot(plot)
    read = list(_lines(pairs, _Pair, '{"a": "...", "b": "...", "same": true}'))
    model = _embedder(embedder)
    vectors = _vectors(model, [text for pair in read for text in (pair.a, pair.b)], quiet=json)
    scored = [
        (_score(pair.a, pair.b, _cosine(one, other)), pair.same)
        for pair, one, other in zip(read, vectors[::2], vectors[1::2], strict=True)
        if one is not None and other is not None
    ]
    points = of_pairs(scored, confidence)
    threshold = keeps(points, budget)
    if out is not None:
        _write(out, prior_of(scored).dump())
    if plot is not None:
        draw(plot, points, "pairs that ask the same")
    if json:
        write_json(
            {
                "pairs": len(read),
                "without_vector": len(read) - len(scored),
                "embedder": model.name,
                "confidence": confidence,
                "budget": budget,
                "threshold": threshold,
                "points": points,
            }
        )
    else:
        heading = [
            "threshold ",
            "found ",
            "interval ",
            "false hits ",
            "interval ",
            "wrong a hit ",
            "interval ",
        ]
        rows = [
            (f"{point.threshold:.2f}", *_cells(point.hits), *_cells(point.false_hits), *_cells(point.wrong))
            for point in points
        ]
        title = (
            f"{output.count(len(read))} pairs, {sum(pair.same for pair in read)} the same, by {model.name}"
        )
        console().print(table(title, heading, rows))
        _conclude(threshold, budget, confidence)
    return Exit.OK if threshold is not None else Exit.FOUND


@app.command()
def forecast(
    log: Annotated[
        Path,
        typer.Argument(help='Lines of {"text": ..., "partition"?, "cls"? or "answer"?}, in their order.'),
    ],
    embedder: WhichEmbedder = "minilm",
    budget: BudgetShare = 0.02,
    confidence: Confidence = 0.95,
    plot: Plot = None,
    json: Json = False,
) -> int:
    """Show how many requests of a log each threshold would have answered, and how many of them wrongly.

    Exits with 1 when answers are known and no threshold keeps the budget.
    """
    _check_plot(plot)
    read = list(_lines(log, _Request, '{"text": "...", "cls": "..."}'))
    model = _embedder(embedder)
    vectors = _vectors(model, [line.text for line in read], quiet=json)
    found = Forecast(_core.VectorIndex(model.dimension, _INDEX_BYTES), _score)
    for line, vector in zip(read, vectors, strict=True):
        partition = hashlib.blake2b(line.partition.encode(), digest_size=32).digest()
        found.add(Line(partition, line.text, vector, str(line.cls) if line.cls is not None else line.answer))
    points = found.points(confidence)
    known = points[-1].wrong.of > 0
    threshold = keeps(points, budget) if known else None
    if plot is not None:
        draw(plot, points, "requests")
    if json:
        write_json(
            {
                "requests": found.requests,
                "repeated": found.repeated,
                "embedder": model.name,
                "confidence": confidence,
                "budget": budget,
                "threshold": threshold,
                "answers_known": known,
                "points": points,
            }
        )
    else:
        heading = ["threshold ", "answered ", "interval ", "wrong a hit ", "interval ", "wrong a request "]
        rows = [
            (
                f"{point.threshold:.2f}",
                *_cells(point.hits),
                *_cells(point.wrong),
                _cells(point.wrong_requests)[0],
            )
            for point in points
        ]
        title = (
            f"{output.count(found.requests)} requests, {output.count(found.repeated)} of them word for word, "
            f"by {model.name}"
        )
        console().print(table(title, heading, rows))
        if known:
            _conclude(threshold, budget, confidence)
        else:
            console().print("no line has a cls or an answer: how many of these hits are wrong is not known")
    return Exit.FOUND if known and threshold is None else Exit.OK


def _conclude(threshold: float | None, budget: float, confidence: float) -> None:
    if threshold is None:
        console().print(f"no threshold keeps {budget:.2%} wrong a hit at {confidence:.1%} confidence")
    else:
        console().print(f"{threshold:.2f} keeps {budget:.2%} wrong a hit at {confidence:.1%} confidence")


def _cells(of: Share) -> tuple[str, str]:
    if of.share is None:
        return "", ""
    return f"{of.share:.2%}", f"{of.low:.1%}..{of.high:.1%}"


def _lines(path: Path, kind: type[_Read], form: str) -> Iterator[_Read]:
    """The lines of a file; a line that is none ends the command and says which."""
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:
            count = 0
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as problem:
                    stop(Exit.USAGE, f"{path}, line {number}: {problem}; each line must be as {form}")
                count += 1
    except OSError as problem:
        stop(Exit.USAGE, f"{path}: {problem.strerror}")
    if not count:
        stop(Exit.USAGE, f"{path}: has no lines; each must be as {form}")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as problem:
        stop(Exit.USAGE, f"{path}: {problem.strerror}")


def _check_plot(path: Path | None) -> None:
    """Before minutes of work: whether there will be a picture."""
    if path is None:
        return
    if path.suffix not in (".png", ".svg"):
        stop(Exit.USAGE, f"{path}: a picture's name must end in .png or .svg")
    if not path.parent.is_dir():
        stop(Exit.USAGE, f"{path}: there is no such folder")
    if not drawing():
        stop(Exit.ENVIRONMENT, "--plot needs matplotlib: pip install 'llmcache-fast[plot]'")


def _embedder(which: str) -> Embedder:
    """The embedder of that name."""
    name, _, folder = which.partition(":")
    if (name, bool(folder)) not in (("minilm", False), ("ngram", False), ("onnx", True)):
        stop(Exit.USAGE, f"--embedder {which}: must be minilm, ngram or onnx:FOLDER")
    from llmcache_fast.semantic import MiniLMEmbedder, NGramEmbedder, OnnxEmbedder

    try:
        if name == "onnx":
            return OnnxEmbedder(folder)
        return MiniLMEmbedder() if name == "minilm" else NGramEmbedder()
    except ConfigurationError as problem:
        stop(Exit.ENVIRONMENT, str(problem))


def _vectors(model: Embedder, texts: Sequence[str], *, quiet: bool) -> list[bytes | None]:
    """A vector for each text; None where the model has none. Equal texts are asked for once."""
    distinct = list(dict.fromkeys(texts))
    known: dict[str, bytes | None] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())

    async def main(progress: Progress) -> None:
        task = progress.add_task("making vectors", total=len(distinct))
        for at in range(0, len(distinct), _BATCH):
            part = distinct[at : at + _BATCH]
            found = vectors_of(await model.embed(part), len(part), model)
            known.update(zip(part, found, strict=True))
            progress.advance(task, len(part))

    try:
        with Progress(*columns, console=console(), disable=quiet, transient=True) as progress:
            anyio.run(main, progress)
    except EmbeddingError as problem:
        stop(Exit.ENVIRONMENT, str(problem))
    return [known[text] for text in texts]


def _cosine(one: bytes, other: bytes) -> float:
    return float(sum(map(mul, memoryview(one).cast("f"), memoryview(other).cast("f"))))


def _score(asked: str, stored: str, cosine: float) -> float:
    """What a budget is given for a candidate: below all thresholds if a guard objects."""
    if cosine < _core.COSINE_FLOOR:
        return -1.0
    found = _core.judge(_core.Question(asked), _core.Question(stored), cosine)
    return -1.0 if found.vetoes else found.score
