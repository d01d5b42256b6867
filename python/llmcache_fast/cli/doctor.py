"""`llmcache-fast doctor`: is this machine fit for the cache, and is what is configured in order?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import anyio
import msgspec

Result = Literal["ok", "note", "problem", "missing"]

_FEATURES = {
    "x86_64": ("sse2", "sse4_1", "avx2", "avx512f", "avx512vl"),
    "aarch64": ("asimd", "sha3"),
}
_CLIENTS = ("openai", "anthropic", "httpx", "httpx2")
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs"})


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. `problem` makes the exit code 1, `missing` 3; a `note` changes nothing."""

    name: str
    result: Result
    detail: str


def checks(tiers: Sequence[str]) -> Iterator[Check]:
    """All checks, each as soon as it is known."""
    yield Check("python", "ok", f"{platform.python_implementation()} {platform.python_version()}")
    build = _build()
    yield build
    yield _cpu()
    yield _clients()
    if build.result != "ok":
        return
    if not tiers:
        yield Check("tiers", "note", "none configured; give --tier or set LLMCACHE_TIERS")
    for tier in tiers:
        yield from _tier(tier)


def configured(tiers: Sequence[str]) -> list[str]:
    """The tiers named on the command line, or else in `LLMCACHE_TIERS`."""
    return list(tiers) or [
        tier for word in os.environ.get("LLMCACHE_TIERS", "").split(",") if (tier := word.strip())
    ]


def address_of(folder: str) -> str | None:
    """The address under which `LLMCACHE_TIERS` names a folder: only there its bound is said."""
    path = Path(folder).absolute()
    for address in configured(()):
        if address.startswith("disk:") and Path(unquote(urlsplit(address).path)) == path:
            return address
    return None


def _build() -> Check:
    try:
        from llmcache_fast import _core, fingerprint
    except ImportError as missing:
        reason = f"the extension does not load ({missing}); reinstall the package, or run `make build`"
        return Check("build", "missing", reason)
    try:
        version = importlib.metadata.version("llmcache-fast")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    # One vector of docs/reference/fingerprint.md: an extension that disagrees would find nothing again.
    if fingerprint({"a": 1}).hex() != fingerprint({"a": 1.0}).hex() or len(fingerprint({"a": 1})) != 32:
        return Check("build", "problem", "the extension computes wrong fingerprints")
    lock = (
        "free-threaded"
        if not getattr(sys, "_is_gil_enabled", lambda: True)()
        else "with the interpreter lock"
    )
    where = Path(str(_core.__file__)).name
    return Check("build", "ok", f"llmcache-fast {version}, {where}, {platform.machine()}, {lock}")


def _cpu() -> Check:
    machine = platform.machine()
    wanted = _FEATURES.get(machine)
    found = _cpu_flags()
    if wanted is None or not found:
        return Check("cpu", "note", f"{machine}: features unknown; portable code is used where needed")
    there = [feature for feature in wanted if feature in found]
    wide = "avx2" in there or machine == "aarch64"
    detail = f"{os.cpu_count()} x {machine} with {', '.join(there) or 'no vector features'}"
    if not wide:
        return Check("cpu", "note", f"{detail}; without avx2 fingerprints take longer")
    return Check("cpu", "ok", detail)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return next(
        (set(value.split()) for name, _, value in lines if name.strip() in ("flags", "Features")), set()
    )


def _clients() -> Check:
    found = []
    for distribution in _CLIENTS:
        try:
            found.append(f"{distribution} {importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Check("clients", "ok" if found else "note", ", ".join(found) or "no client SDK installed")


def _tier(target: str) -> Iterator[Check]:
    scheme = urlsplit(target).scheme
    if scheme == "disk":
        yield from _disk(target)
    elif not scheme:
        address = address_of(target)
        yield from _disk(address or f"disk://{quote(str(Path(target).absolute()))}", bounded=bool(address))
    else:
        yield _server(scheme, target)


def _server(scheme: str, url: str) -> Check:
    """Whether a server answers a read. Changes nothing there: a schema that is not made yet is a problem."""
    from llmcache_fast._addresses import tiers_of
    from llmcache_fast._core import Clock
    from llmcache_fast._errors import ConfigurationError, TierError
    from llmcache_fast.cli.tiers import looking

    name = scheme.partition("+")[0]

    async def ask() -> None:
        (tier,) = tiers_of([looking(url)], Clock())
        await tier.open()
        try:
            await tier.get_many([bytes(32)])
        finally:
            await tier.aclose()

    try:
        anyio.run(ask)
    except (ConfigurationError, TierError) as problem:
        return Check(name, "problem", str(problem))
    return Check(name, "ok", "the server answers")


def _disk(url: str, *, bounded: bool = True) -> Iterator[Check]:
    """`bounded`: the address says how large the tier may grow; of a bare folder that is not known."""
    from llmcache_fast._errors import ConfigurationError, TierError
    from llmcache_fast.tiers.disk import DiskTier

    try:
        tier = DiskTier.from_url(url)
    except ConfigurationError as problem:
        yield Check("disk", "problem", str(problem))
        return
    path = tier.path
    kind = _file_system(path)
    if kind in _NETWORK_FILE_SYSTEMS:
        yield Check("disk file system", "problem", f"{path} is on {kind}: SQLite's locks do not work there")
    if not path.exists():
        yield Check("disk", "note", f"{path} does not exist yet; the cache makes it")
        return
    if not os.access(path, os.W_OK | os.X_OK):
        yield Check(
            "disk", "problem", f"{path} cannot be written by this user; the cache runs without the tier"
        )
        return
    free = shutil.disk_usage(path).free
    room: Result = "ok" if free > tier.max_bytes // 10 else "problem"
    bound = f", the tier takes up to {tier.max_bytes >> 20:,} MiB" if bounded else ""
    yield Check("disk space", room, f"{free >> 20:,} MiB free{bound}")

    async def look() -> tuple[list[str], dict[str, int]]:
        await tier.open()
        try:
            return await tier.check(), await tier.stats()
        finally:
            await tier.aclose()

    try:
        problems, stats = anyio.run(look)
    except TierError as problem:
        yield Check("disk", "problem", str(problem))
        return
    if problems:
        yield Check("disk", "problem", f"{path}: {'; '.join(problems[:3])}")
    else:
        yield Check("disk", "ok", f"{path} is sound, {stats.get('rows', 0):,} entries")


def _file_system(path: Path) -> str:
    """The type of the file system that holds the path; empty where it cannot be told."""
    try:
        mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    inside = [(len(point), kind) for _, point, kind in mounts if path.absolute().is_relative_to(point)]
    return max(inside)[1] if inside else ""
