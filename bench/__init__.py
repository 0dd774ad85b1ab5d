"""Benchmarks: see bench/README.md."""

from __future__ import annotations

import pytest

ROWS: pytest.StashKey[dict[str, dict[str, tuple[float, float]]]] = pytest.StashKey()
"""Of this run: group -> implementation -> (ns/element, GB/s)."""
