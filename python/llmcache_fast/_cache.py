"""`LLMCache`: the public face. Life cycle, verbs, and the only place where the parts are put together."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, overload

import anyio

from llmcache_fast import _admission
from llmcache_fast._addresses import tiers_of
from llmcache_fast._answer import Answer, Landing, entry_of
from llmcache_fast._codec import decode
from llmcache_fast._computing import Computing
from llmcache_fast._core import Clock
from llmcache_fast._decorator import Cached, cached
from llmcache_fast._entry import CacheResult, Computed, Content, Erasure, Invalidation, of_stored_form
from llmcache_fast._erasure import Erasures
from llmcache_fast._errors import ConfigurationError, UnstorableValueError
from llmcache_fast._explain import Explanation, Recent
from llmcache_fast._invalidation import Invalidations
from llmcache_fast._lifecycle import Lifecycle
from llmcache_fast._lookup import Lookup
from llmcache_fast._options import (
    DEFAULT_COHERENCE_LEASE,
    DEFAULT_DEADLINE,
    DEFAULT_LEASE_WAIT,
    DEFAULT_MEMORY,
    DEFAULT_SWEEP_RATE,
    UNSET,
    Seconds,
    Unset,
    call_options,
    from_environment,
    micros,
    names,
    namespace_of,
    options_of,
)
from llmcache_fast._patterns import pattern_of
from llmcache_fast._questions import Subject
from llmcache_fast._recordings import Recordings
from llmcache_fast._secrecy import ENVIRONMENT, Secrecy
from llmcache_fast._semantics import Semantics
from llmcache_fast._stats import CacheStats, cache_stats
from llmcache_fast._storing import Storing
from llmcache_fast._streams import Source, StreamReader, Streams
from llmcache_fast._usage import PriceTable, Usage
from llmcache_fast._wire import Wire
from llmcache_fast.actors.dead_letters import FOLDER, DeadLetters
from llmcache_fast.actors.flights import Flights
from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.reader import Untaken
from llmcache_fast.actors.write_report import Durability, WriteReport
from llmcache_fast.actors.writers import Writers
from llmcache_fast.semantic.options import SemanticOptions
from llmcache_fast.tiers.base import SearchPage, Tier

T = TypeVar("T")

CLOSE_TIMEOUT = 10.0
"""Seconds that `aclose` may take to write what is buffered."""


class LLMCache(Lifecycle):
    """A cache of LLM responses. Open it with `async with`; every method but the constructor needs it open.

    >>> async with LLMCache() as cache:                                   # doctest: +SKIP
    ...     reply = await cache.get_or_compute(request, call_model)

    Args:
        tiers: Tiers below memory, fastest first: addresses (`disk:///var/lib/app/cache`) or `Tier` objects.
        namespace: Hard wall between tenants and applications; part of every fingerprint and record.
        memory: Bytes of L1, everything counted: a number or `"256MiB"`.
        ttl: Seconds an entry is fresh; None never expires.
        stale_while_revalidate: Seconds after `ttl` in which the old value is returned at once while a new
            one is computed (as in RFC 5861).
        stale_if_error: Seconds after `ttl` in which the old value stands in for a failed computation (as
            there).
        profile: Rules for the fields of a request: `generic`, `openai.chat`, `openai.responses`,
            `anthropic.messages`.
        normalize: `"NFC"` puts all strings of requests into Unicode normalisation form C first.
        jitter: Share of `ttl` that is taken off at random, so that entries do not expire together; 0 to 0.5.
        negative_ttl: Seconds in which a deterministic refusal (400, 404, 413, 422, ...) is kept; 0 never.
        deadline: Seconds after which a computation is cancelled and detached.
        on_abandon: What becomes of a computation nobody waits for: `finish` it (its tokens are paid for) or
            `cancel` it.
        max_orphans: How many such computations may go on.
        max_background: How many refreshes of stale values may run at once; beyond it a stale value is served
            and not refreshed.
        admit: Whether a computed value may be stored; the default refuses what is empty or cut off.
        prices: The price table by which usage becomes cost.
        lease_wait: Seconds for which a computation of another process that shares a Redis or Postgres tier is
            waited for before computing all the same, half the `deadline` at the most; 0 does not ask whether
            there is one.
        journal: A folder on a local disk, in which what is on its way to the tiers survives the process,
            until they have it; several processes may share it.
        durability: When `set` answers: `memory`, when it is buffered for the tiers; `journal`, when the
            journal has it on disk (the default with a journal); `sync`, when the last tier has it.
        compress: Whether records below memory are compressed, where that pays.
        secrecy: Keys by which records below memory are sealed, and names blinded.
        coherence_lease: Seconds after which an invalidation by another process is known here at the latest,
            or what is found is marked `unverified` until the authority is heard again.
        strict: Rather than going on with what is not certain, `invalidate` raises when the authority cannot
            be told, instead of answering `deferred`; and past `coherence_lease` nothing is served.
        sweep_rate: Records a second at which tiers are looked through for what was invalidated, to delete
            it; 0 leaves it to its time to live.
        semantic: Whether and how the answer to another request that asks the same will do; None: it will not.
        clock: A `testing.ManualClock` in tests.

    Raises:
        ConfigurationError: an option that cannot work: what, and what to do.
    """

    def __init__(
        self,
        *,
        tiers: Sequence[str | Tier] = (),
        namespace: str = "default",
        memory: int | str = DEFAULT_MEMORY,
        ttl: Seconds | None = 3600.0,
        stale_while_revalidate: Seconds = 0.0,
        stale_if_error: Seconds = 0.0,
        profile: str = "generic",
        normalize: Literal["NFC"] | None = None,
        jitter: float = 0.1,
        negative_ttl: Seconds = 30.0,
        deadline: Seconds = DEFAULT_DEADLINE,
        on_abandon: Literal["finish", "cancel"] = "finish",
        max_orphans: int = 64,
        max_background: int = 64,
        admit: Callable[[Any], bool] | None = None,
        prices: PriceTable | None = None,
        lease_wait: Seconds = DEFAULT_LEASE_WAIT,
        coherence_lease: Seconds = DEFAULT_COHERENCE_LEASE,
        sweep_rate: float = DEFAULT_SWEEP_RATE,
        journal: str | Path | None = None,
        durability: Durability | None = None,
        compress: bool = True,
        secrecy: Secrecy | None = None,
        strict: bool = False,
        semantic: SemanticOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.options = options_of(
            namespace=namespace,
            memory=memory,
            ttl=ttl,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            profile=profile,
            normalize=normalize,
            jitter=jitter,
            negative_ttl=negative_ttl,
            deadline=deadline,
            on_abandon=on_abandon,
            max_orphans=max_orphans,
            max_background=max_background,
            lease_wait=lease_wait,
            coherence_lease=coherence_lease,
            sweep_rate=sweep_rate,
            journal=journal,
            durability=durability,
            strict=strict,
        )
        self._wire = Wire(secrecy, compress=compress)
        self._clock = clock or Clock()
        self._tiers = tiers_of(tiers, self._clock)
        if self.options.durability != "memory" and not self._tiers:
            raise ConfigurationError(
                f"durability {self.options.durability!r} needs tiers: nothing is below memory to write to"
            )
        self._admit = admit or _admission.admit
        self._prices = prices
        self._semantic = semantic
        try:
            self._configure(
                memory=self.options.memory,
                namespace=namespace,
                profile=profile,
                normalize=normalize,
                clock=self._clock,
                epoch=secrets.randbits(63) | 1,
                alone=not self._tiers,
                strict=strict and any(hasattr(tier, "raise_markers") for tier in self._tiers),
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._recent = Recent(self)
        self._reports: dict[str, WriteReport] = {}

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **options: Any) -> Self:
        """A cache configured by `LLMCACHE_TIERS` (comma-separated), `LLMCACHE_TTL` (`none` for no end) and so
        on: each option that text can say has a variable of its name, switches are `1` or `0`. With the keys
        of `Secrecy.from_environment`. `options` win.

        Raises:
            ConfigurationError: an unknown variable of that prefix, or a value that cannot work.
        """
        given = from_environment(environment, elsewhere=ENVIRONMENT)
        if "secrecy" not in options:
            given["secrecy"] = Secrecy.from_environment(environment)
        return cls(**{**given, **options})

    # -- life cycle -----------------------------------------------------------------------------------

    async def _assemble(self, exits: AsyncExitStack) -> None:
        tasks = await exits.enter_async_context(anyio.create_task_group())
        exits.callback(tasks.cancel_scope.cancel)
        self._flights = Flights(
            tasks,
            deadline=self.options.deadline,
            on_abandon=self.options.on_abandon,
            max_orphans=self.options.max_orphans,
            max_background=self.options.max_background,
        )
        await tasks.start(self._flights.run)
        self._lookup = Lookup(
            self,
            self._tiers,
            self._clock,
            self._wire,
            self._writers(),
            # In the other half of its time a flight computes.
            lease_wait=min(self.options.lease_wait, self.options.deadline / 2),
            coherence_lease=self.options.coherence_lease,
            strict=self.options.strict,
            journal=self.options.journal,
        )
        exits.push_async_callback(self._close_tiers)
        await self._lookup.open(tasks, self.options.namespace, self._supersede_covered)
        self._storing = Storing(
            self,
            self._lookup,
            self._flights,
            self.options,
            clock=self._clock,
            admit=self._admit,
            prices=self._prices or PriceTable.shipped(),
        )
        semantics = self._semantics_of(self._semantic, tasks)
        if semantics is not None:
            await semantics.open()
            exits.push_async_callback(semantics.aclose)
        self._semantics = semantics
        self._computing = Computing(
            self,
            self._lookup,
            self._flights,
            self._storing,
            self.options,
            clock=self._clock,
            missed=self._recent.add,
            semantics=semantics,
        )
        self._invalidations = Invalidations(
            self,
            self._lookup.markers,
            self._flights,
            strict=self.options.strict,
        )
        self._erasures = Erasures(self, self._wire, self._lookup, self._invalidations, clock=self._clock)
        sweeper = self._erasures.sweeper(self.options.sweep_rate)
        if sweeper is not None:
            await tasks.start(sweeper.run)
        recordings = Recordings(self, self._lookup, self._storing, self._computing, self._clock)
        self._streams = Streams(self._computing, recordings, self._storing, self._flights)
        exits.callback(self._flights.close)

    def _semantics_of(self, options: SemanticOptions | None, tasks: anyio.abc.TaskGroup) -> Semantics | None:
        if options is None or options.mode == "off":
            return None
        memory = options.memory or self.options.memory // 4
        return Semantics(self, self._lookup, options, memory=memory, clock=self._clock, tasks=tasks)

    def _writers(self) -> Writers:
        options, folder = self.options, self.options.journal
        return Writers(
            options.durability,
            journal=None if folder is None else Journal(folder),
            dead_letters=None if folder is None else DeadLetters(Path(folder) / FOLDER, clock=self._clock),
            strict=options.strict,
            clock=self._clock,
        )

    def _supersede_covered(self, namespace: str) -> None:
        self._flights.supersede_where(namespace, self._lookup.is_current)

    async def _close_tiers(self) -> None:
        with anyio.CancelScope(shield=True):
            self._reports = await self._lookup.aclose(CLOSE_TIMEOUT)

    @property
    def close_report(self) -> dict[str, WriteReport]:
        """By tier: what was written, lost and left, in entries, when the cache was closed; empty before."""
        return self._reports

    # -- reading and computing ------------------------------------------------------------------------
    # `get`, `get_nowait`, `get_or_compute` and `fingerprint` are methods of `Engine`: a hit ends there.

    async def _get_below(self, key: bytes, default: Any, kind: Any, namespace: str) -> Any:
        joined = self._lookup.join(key, namespace)
        first = None if joined is None else await joined
        if first is None or isinstance(first, Untaken):
            found = await self._lookup.get(key, namespace, first)
            return default if found is None else self._decoded_or(default, found, kind)
        return first if kind is None else self._decoded_or(default, of_stored_form(first), kind)

    def _decoded_or(self, default: Any, found: tuple[Content, bytes | str], kind: Any) -> Any:
        try:
            return decode(*found, kind)
        except UnstorableValueError:
            return default

    def _compute(
        self,
        key: bytes,
        request: Any,
        compute: Callable[..., Awaitable[Any]],
        kind: Any,
        namespace: str,
        options: Mapping[str, Any] | None,
        profile: str | None,
        variant: str | int | None,
    ) -> Awaitable[Any]:
        return self._computing.value(key, request, compute, kind, namespace, options, profile, variant)

    def _locate(
        self, request: Any, namespace: str | None, profile: str | None, variant: str | int | None
    ) -> tuple[bytes, str]:
        """Fingerprint and namespace of a call to an open cache."""
        self._check_open()
        key = self.fingerprint(request, namespace=namespace, profile=profile, variant=variant)
        return key, namespace_of(namespace or self.options.namespace)

    def _decoded(self, value: Any, kind: Any) -> tuple[Any] | None:
        """For `Engine`: what a caller gets of a stored value, or None if it is no hit for this caller."""
        try:
            return (decode(*of_stored_form(value), kind),)
        except UnstorableValueError:
            return None

    async def resolve(
        self,
        request: Any,
        compute: Callable[..., Awaitable[Any]],
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
        **options: Any,
    ) -> CacheResult[Any]:
        """As `get_or_compute`, with where the value came from.

        It runs in Python also for a hit, which costs a few microseconds more than with `get_or_compute`.
        """
        key, name = self._locate(request, namespace, profile, variant)
        vouched = self._lookup.markers.is_vouched(name)
        if "refresh" not in options and (vouched or not self.options.strict):
            view = self._view(key)
            if view is not None and self._clock() < view.fresh_until:
                found = Answer(Landing(entry_of(view, key, name), None, "hit", "memory"), "hit")
                try:
                    return found.result(key, type, self._clock(), vouched=vouched)
                except UnstorableValueError:
                    pass
        subject = Subject(key, request, name, profile, variant, call_options(self.options, options))
        answer = await self._computing.answer(subject, compute, type)
        return answer.result(key, type, self._clock(), vouched=self._lookup.markers.is_vouched(name))

    async def stream(
        self,
        request: Any,
        source: Source,
        *,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
        **options: Any,
    ) -> StreamReader:
        """A reader over a recorded stream: an entry, one that is running, or a new one that `source` records.

        `source` runs once, in a task of the cache: `recorder.begin(head)`, `recorder.write(chunk)`,
        `recorder.commit(...)`. Only what was committed is stored. Options as for `get_or_compute`, but
        without `type`: chunks are bytes, and keep their boundaries. Returns when the head is known. `timeout`
        bounds that wait, in seconds; the cache's `deadline` bounds the whole recording.

        Raises:
            CacheClosedError: the cache is not open, or was opened in another event loop.
            NotCachedError: `only_if_cached`, and nothing is.
            WaitTimeoutError: the head was not there within `timeout`.
            Exception: what `source` raised before `begin`; later failures are raised while reading.
        """
        key, name = self._locate(request, namespace, profile, variant)
        checked = call_options(self.options, options)
        self._check_loop()
        inquiry = self._computing.inquiry(Subject(key, request, name, profile, variant, checked))
        return await self._streams.open(key, source, name, checked, inquiry)

    async def get_many(
        self,
        requests: Iterable[Any],
        default: Any = None,
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
    ) -> list[Any]:
        """The value of each request, or `default`, in their order: as many values as requests.

        Fresh values only, as `get`. What memory does not have is read from each lower tier in one round trip.

        Raises:
            UnkeyableRequestError: one of the requests has no canonical form; nothing was read.
        """
        self._check_open()
        scope = {"type": type, "namespace": namespace, "profile": profile}
        keys = [self.fingerprint(request, namespace=namespace, profile=profile) for request in requests]
        values = [self.get_nowait(key, UNSET, type=type) for key in keys]
        absent = [at for at, value in enumerate(values) if value is UNSET]

        async def read(at: int) -> None:
            values[at] = await self.get(keys[at], default, **scope)

        if absent and self._tiers:
            async with anyio.create_task_group() as tasks:
                for at in absent:
                    tasks.start_soon(read, at)
        return [default if value is UNSET else value for value in values]

    # -- writing --------------------------------------------------------------------------------------

    async def set(
        self,
        request: Any,
        value: Any,
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
        usage: Usage | None = None,
        model: str | None = None,
        cost: int | None = None,
        **options: Any,
    ) -> bool:
        """Store a value; whether memory took it. A computation that is running does not overwrite it.

        `cost` is in micro-USD; without it, it is taken from `usage` and `model`. Options as for
        `get_or_compute`. Lower tiers are written behind: `flush` waits for them.

        Raises:
            UnstorableValueError: the value cannot be stored so that a hit returns the same.
            ConfigurationError: an option that cannot work.
        """
        key, name = self._locate(request, namespace, profile, variant)
        checked = call_options(self.options, options)
        computed: Computed[Any] = (
            value if isinstance(value, Computed) else Computed(value, usage=usage, model=model, cost=cost)
        )
        inquiry = self._computing.inquiry(Subject(key, request, name, profile, variant, checked))
        facet = None if inquiry is None else await inquiry.facet()
        stored = await self._storing.put(key, name, computed, type, checked, facet)
        self._computing.forget_failure(key)
        self._recent.add(key, request)
        return stored

    async def delete(
        self,
        request: Any,
        *,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> bool:
        """Remove an entry from every tier; whether there was one. What is being computed is not stored.

        It is also invalidated, so that a write that comes late does not bring it back (I1). A tier that fails
        is counted, not raised. Costs one write of each lower tier.
        """
        key, name = self._locate(request, namespace, profile, variant)
        await self._invalidations.apply(name, self._named_targets(name, keys=[key]))
        self._computing.forget_failure(key)
        return await self._lookup.remove(key, name)

    async def expire(
        self,
        request: Any,
        *,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> bool:
        """End an entry's freshness in every tier, keeping it as a stale fallback; whether there was one.

        Of use only to an entry with a stale window. Costs one read and a buffered write of each lower tier.
        """
        key, name = self._locate(request, namespace, profile, variant)
        return await self._lookup.expire(key, name)

    # -- invalidation ---------------------------------------------------------------------------------

    async def invalidate(
        self,
        request: Any = UNSET,
        *,
        key: bytes | None = None,
        tags: Sequence[str] | Unset = UNSET,
        label: str | Unset = UNSET,
        pattern: str | Unset = UNSET,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
        dry_run: bool = False,
    ) -> Invalidation:
        """Invalidate by request or fingerprint, by tags (any of them), by label, or a whole namespace.

        A label that ends in `/` or `/*` covers all below it. Costs one round trip to the authority, however
        many entries it covers. After it returns, no value whose computation started before is returned to a
        new call (I1): here at once, and in other processes that share the authority within milliseconds,
        `coherence_lease` at the latest (I2). It is durable when it returns, unless the answer says
        `deferred`. Frees no bytes by itself.

        `pattern` covers labels that match it, such as `content/*/2024-*`: `*` within a part of the path, `**`
        for any number of parts, `?` for a character. That costs every later look at an older entry with a
        label, so it is bounded: of more than 128 patterns, older ones become the label before their first
        wildcard.

        `dry_run` invalidates nothing and counts what would be covered, which costs a walk through all entries
        of all tiers, up to a million of each.

        Raises:
            ConfigurationError: nothing, or something that cannot be, was named; nothing is invalidated.
            CacheClosedError: the cache is not open; or `strict`, and the authority could not be told.
        """
        self._check_open()
        if request is not UNSET:
            if key is not None:
                raise ConfigurationError("key: give a request or its key, not both")
            key = self.fingerprint(request, namespace=namespace, profile=profile, variant=variant)
        name, targets, patterns = self._named(key, tags, label, pattern, namespace)
        return await (self._preview if dry_run else self._invalidations.apply)(name, targets, patterns)

    async def erase(
        self,
        request: Any = UNSET,
        *,
        key: bytes | None = None,
        tags: Sequence[str] | Unset = UNSET,
        label: str | Unset = UNSET,
        pattern: str | Unset = UNSET,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> Erasure:
        """Invalidate, then delete physically: memory, buffered writes, journal, dead letters, every tier.

        What is named as for `invalidate`; values computed after it are kept. The invalidation is durable
        first, so nothing erased is answered again whatever happens meanwhile; an erasure that was cut short
        is finished by another, or in time by the sweepers. Costs a walk through every tier. What it does not
        reach (backups, replicas, PostgreSQL's files until VACUUM FULL) is in "Invalidate and erase".

        Raises:
            ConfigurationError: nothing, or something that cannot be, was named; nothing is erased.
            CacheClosedError: the cache is not open; or `strict`, and the authority could not be told: then
                it is invalid in this process, and nothing was deleted.
        """
        self._check_open()
        if request is not UNSET:
            if key is not None:
                raise ConfigurationError("key: give a request or its key, not both")
            key = self.fingerprint(request, namespace=namespace, profile=profile, variant=variant)
        name, targets, patterns = self._named(key, tags, label, pattern, namespace)
        try:
            return await self._erasures.erase(name, targets, patterns)
        finally:
            # Also of an erasure that was cancelled or failed: what is kept for speed comes back by itself.
            if self._semantics is not None:
                self._semantics.forget(name)

    def _named(
        self, key: bytes | None, tags: Any, label: Any, pattern: Any, namespace: str | None
    ) -> tuple[str, list[int], list[str]]:
        """Namespace, targets and patterns of what an invalidation names."""
        name = namespace_of(namespace if namespace is not None else self.options.namespace)
        targets = self._invalidations.named(name, key=key, tags=tags, label=label)
        patterns = [] if pattern is UNSET else [pattern_of(pattern)]
        if not targets and not patterns:
            if namespace is None:
                raise ConfigurationError(
                    "nothing was named: give a request, key, tags, label, pattern or namespace"
                )
            targets = [self._namespace_id(name)]
        return name, targets, patterns

    async def bump_version(
        self, name: str, *, namespace: str | None = None, dry_run: bool = False
    ) -> Invalidation:
        """Invalidate all entries that were stored with `depends_on=[name]`. As `invalidate` otherwise."""
        self._check_open()
        space = namespace_of(namespace if namespace is not None else self.options.namespace)
        targets = self._named_targets(space, versions=list(names("name", [name])))
        return await (self._preview if dry_run else self._invalidations.apply)(space, targets)

    async def report_wrong(self, result: CacheResult[Any]) -> bool:
        """Take back a semantic hit that was wrong: its entry is invalidated and deleted in every tier, the
        two questions are never matched again, in any process, and the namespace's evidence counts it. Whether
        the entry was still anywhere.

        Raises:
            ConfigurationError: `result` is no semantic hit.
            CacheClosedError: the cache is not open.
        """
        self._check_open()
        match = result.semantic
        if self._semantics is None or match is None or not match.served:
            raise ConfigurationError(
                f"result: its status is {result.status!r}; only a semantic hit of `resolve` can be taken back"
            )
        await self._semantics.report_wrong(match)
        key, namespace = match.fingerprint, match.namespace
        await self._invalidations.apply(namespace, self._named_targets(namespace, keys=[key]))
        return await self._lookup.remove(key, namespace)

    async def _preview(
        self, namespace: str, targets: Sequence[int], patterns: Sequence[str] = ()
    ) -> Invalidation:
        covered = await self._erasures.preview(namespace, targets, patterns)
        return Invalidation(seq=self._stamp(self._namespace_id(namespace))[1], covered=covered)

    # -- looking in -----------------------------------------------------------------------------------

    def explain(
        self, request: Any, *, namespace: str | None = None, profile: str | None = None
    ) -> Explanation:
        """Each field of a request with the rule that kept, dropped or defaulted it; for a request without an
        entry in memory, the nearest requests stored lately and the fields that differ. Shows no values.
        """
        return self._recent.explain(request, namespace, profile)

    async def search(
        self,
        *,
        label: str | None = None,
        tags: Sequence[str] | None = None,
        model: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        namespace: str | None = None,
    ) -> SearchPage:
        """Facts of stored entries, newest first, without the answers: from the Postgres tier.

        `label` is a path, or all below one (`content/blog/*`); entries have all of `tags`. At most `limit`
        (10,000) rows, and a cursor when there are more. What was written a moment ago may still be on its way
        there: see `flush`. Entries that a key hides are not found, nor what was invalidated or is gone.

        Raises:
            ConfigurationError: no tier can be searched, or a condition cannot be.
            TierError: the tier failed.
        """
        self._check_open()
        return await self._lookup.search(
            namespace_of(namespace if namespace is not None else self.options.namespace),
            label=label,
            tags=tags,
            model=model,
            created_after=micros("created_after", created_after),
            created_before=micros("created_before", created_before),
            limit=limit,
            cursor=cursor,
        )

    def stats(self) -> CacheStats:
        """What happened since the cache was opened; L1's counts are exact.

        Walks the entries in memory for what their hits saved: about a millisecond for each 100,000.
        """
        self._check_open()
        return cache_stats(
            self._shards(),
            [floor.statistics() for floor in self._lookup.floors],
            self._computing.counts,
            stored=self._storing.stored,
            not_stored=self._storing.not_stored,
            writes=asdict(self._lookup.writers.statistics()),
            flights=self._flights.statistics()._asdict(),
            coherence=self._lookup.markers.statistics(),
            saved=self._computing.saved,
            semantic=None if self._semantics is None else self._semantics.statistics(),
        )

    async def flush(self, timeout: float | None = None) -> dict[str, WriteReport]:
        """Wait until all that is buffered now is written to the lower tiers, `timeout` seconds at most.

        By tier: entries written, shed, lost and remaining. What was written survives SIGKILL (I8). Raises
        nothing because of a tier.
        """
        self._check_open()
        return await self._lookup.flush(timeout)

    @overload
    def cached(self, function: Callable[..., Awaitable[T]], /) -> Cached[T]: ...
    @overload
    def cached(
        self,
        /,
        *,
        label: str | None = None,
        version: str | int | None = None,
        ignore: Sequence[str] = (),
        question: str | None = None,
        type: Any = UNSET,
        **options: Any,
    ) -> Callable[[Callable[..., Awaitable[T]]], Cached[T]]: ...
    def cached(self, function: Any = None, /, **options: Any) -> Any:
        """A decorator: the function's answers are cached by its identity and arguments.

        `label` may name arguments: `"code/{analysis_type}"`. `version` is part of the key: change it with the
        function's meaning. `ignore` names arguments that do not count, `question` the one whose other
        wordings may be answered with the same, where the cache matches meaning. The type of the answer is
        taken from the function's annotation. Other options as for `get_or_compute`. The cache need not be
        open yet.

        Raises:
            ConfigurationError: not an async function, or `ignore` names something else than its arguments.
        """
        return cached(self, function, **options)
