"""One thread for these tests, and a cache of their own."""

from __future__ import annotations

from tests.small_states import one_thread, own_cache

__all__ = ["one_thread", "own_cache"]
