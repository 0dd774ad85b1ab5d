"""Benchmarks: see bench/README.md."""

ROWS: dict[str, dict[str, tuple[float, float]]] = {}
"""Of this run: group -> implementation -> (ns/element, GB/s), for the table at its end."""
