"""What of an HTTP call is in its key: everything but what a named rule drops.

In: method, URL without credentials, the body's own fingerprint under its endpoint's profile, every header
that no rule drops (organisation, project, API version, beta flags, a gateway's routing headers), the body
fields that change the bytes on the wire although they do not change the answer (`stream`,
`stream_options`), the variant, and the scope.

The **scope** keeps the callers of different credentials apart. It is the fingerprint, a keyed BLAKE3
digest, of the credentials found in headers, URL and query; it depends on nothing of the process, so
entries of a disk tier are found again after a restart. Credentials themselves never enter the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from llmcache_fast.integrations.wire.controls import PREFIX
from llmcache_fast.integrations.wire.endpoints import Endpoint

KEY_VERSION = 1

DROPPED_PREFIXES = (PREFIX, "x-stainless-", "x-b3-", "x-datadog-", "x-forwarded-")
"""Headers that never count: the SDKs' own telemetry, tracing, proxies."""

DROPPED_HEADERS = frozenset(
    {
        "accept-encoding",
        "b3",
        "baggage",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "expect",
        "forwarded",
        "idempotency-key",
        "keep-alive",
        "pragma",
        "priority",
        "request-id",
        "sentry-trace",
        "te",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "uber-trace-id",
        "upgrade",
        "user-agent",
        "via",
        "x-amzn-trace-id",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-ms-client-request-id",
        "x-real-ip",
        "x-request-id",
    }
)
"""Headers that never count, by name. The content type is dropped because only JSON bodies are cached."""

INFRASTRUCTURE_COOKIES = frozenset({"__cf_bm", "_cfuvid", "__cflb", "AWSALB", "AWSALBCORS", "AWSALBTG"})
"""Cookies that load balancers set by themselves; they change all the time and identify nobody."""

_CREDENTIAL = re.compile(
    r"(^|[-_])(auth|authorization|token|secret|password|passwd|credentials?|signature|sig|session|jwt|"
    r"api-?key|apikey|key|cookie)([-_]|$)"
)


_OWN_HOSTS = re.compile(
    r"(^|\.)(api\.openai\.com|openai\.azure\.com|cognitiveservices\.azure\.com|services\.ai\.azure\.com|"
    r"api\.anthropic\.com)$"
)
_WIRE_FIELDS = frozenset({"stream", "stream_options"})


def is_credential(name: str) -> bool:
    """Whether a header or query parameter of this name (lower case) is taken for a credential."""
    return _CREDENTIAL.search(name) is not None


def split_headers(
    headers: Iterable[tuple[str, str]], ignored: frozenset[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The headers that count and the credentials among them; names in lower case, repeats joined."""
    counted: dict[str, str] = {}
    credentials: dict[str, str] = {}
    for name, given in headers:
        if name in DROPPED_HEADERS or name in ignored or name.startswith(DROPPED_PREFIXES):
            continue
        value = _own_cookies(given) if name == "cookie" else given
        if name == "cookie" and not value:
            continue
        target = credentials if is_credential(name) else counted
        target[name] = f"{target[name]}, {value}" if name in target else value
    return counted, credentials


def _own_cookies(value: str) -> str:
    cookies = (cookie.strip() for cookie in value.split(";"))
    kept = [c for c in cookies if c and c.partition("=")[0] not in INFRASTRUCTURE_COOKIES]
    return "; ".join(sorted(kept))


def split_url(url: str) -> tuple[str, dict[str, str]]:
    """The URL that counts and the credentials that it carried, in its user part or its query."""
    parts = urlsplit(url)
    credentials: dict[str, str] = {}
    host = parts.netloc
    if "@" in host:
        user, _, host = host.rpartition("@")
        credentials["url user"] = user
    query: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if is_credential(name.lower()):
            credentials[f"query {name.lower()}"] = value
        else:
            query.append((name, value))
    # The query is encoded anew only when something was taken out of it: else it counts as it was given.
    text = urlencode(query) if len(credentials) > ("url user" in credentials) else parts.query
    return urlunsplit((parts.scheme, host, parts.path, text, "")), credentials


class KeyRules:
    """How a transport forms keys.

    `scope` replaces the credentials' digest by a name of the caller's choice; `share_credentials` drops it,
    so all credentials share entries. `ignored_headers` are left out beyond the rules above.
    """

    def __init__(
        self,
        fingerprint: Callable[..., bytes],
        *,
        share_credentials: bool = False,
        scope: str | None = None,
        ignored_headers: Iterable[str] = (),
    ) -> None:
        if share_credentials and scope is not None:
            raise ValueError("give either scope= or share_credentials=True, not both")
        self._fingerprint = fingerprint
        self._by_credentials = not share_credentials and scope is None
        self._scope: str | None = scope
        self._ignored = frozenset(name.lower() for name in ignored_headers)

    @property
    def by_credentials(self) -> bool:
        """Whether credentials decide the scope."""
        return self._by_credentials

    def scope_of(self, url: str, headers: Iterable[tuple[str, str]]) -> bytes | str | None:
        """The scope of a call alone."""
        return self._scope_from({**split_url(url)[1], **split_headers(headers, self._ignored)[1]})

    def request_of(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: Mapping[str, Any],
        variant: str | None,
    ) -> dict[str, Any]:
        """The mapping that stands for the call and is given to the cache as its request."""
        bare_url, credentials = split_url(url)
        counted, more = split_headers(headers, self._ignored)
        parts = urlsplit(bare_url)
        # The host is in the URL; it counts on its own only where a client was told to send another one.
        if counted.get("host") == parts.netloc:
            del counted["host"]
        # A profile's defaults are those of the provider's own servers. Elsewhere an explicit default may
        # differ from an absent one, so the names of the fields that are there count.
        own = _OWN_HOSTS.search(parts.hostname or "") is not None
        return {
            "fields": None if own else sorted(body.keys() - _WIRE_FIELDS),
            "llmcache.http": KEY_VERSION,
            "method": method,
            "url": bare_url,
            "headers": counted,
            "scope": self._scope_from({**credentials, **more}),
            "wire": {"stream": bool(body.get("stream")), "stream_options": body.get("stream_options")},
            "variant": variant,
            "body": self._fingerprint(body, profile=endpoint.profile),
        }

    def _scope_from(self, credentials: dict[str, str]) -> bytes | str | None:
        if not self._by_credentials:
            return self._scope
        if not credentials:
            return None
        return self._fingerprint(
            {"llmcache.credentials": KEY_VERSION, "found": credentials}, profile="generic"
        )
