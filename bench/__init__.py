"""Measurements: one file a question. Each prints one JSON object with ``--json -``."""
