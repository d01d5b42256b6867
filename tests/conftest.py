"""What every test shares: both event loops, and how hard random search looks."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.servers.redis import (  # noqa: F401 - fixtures
    certificate,
    redis_cluster,
    redis_prefix,
    redis_server,
    start_redis,
)

# No deadlines: a timed assertion fails on a busy machine.
settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", parent=settings.get_profile("default"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each async test runs on both event loops; a module that cannot overrides this fixture."""
    backend: str = request.param
    return backend
