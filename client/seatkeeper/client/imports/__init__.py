"""Licence and options files of other servers, as pools. Pure.

- ``statement``, ``lexer``: from bytes to statements; every line is of one, blank, or a comment.
- ``dialect``, ``flexnet``, ``rlm``: what each keyword means, a table for each server.
- ``fields``, ``parsed``: the fields that both have, and what statements mean.
- ``feature_lines``, ``seats``, ``contracts``: which licences are in force and when, and the pools that
  they make.
- ``groups``, ``shares``: reservations and limits, as the projects of pools.
- ``daemons``, ``holders``, ``drafts``, ``who_may``: who may use what, as the rules of pools.
- ``names``, ``pools_text``, ``made``, ``translation``: the file of pools, checked as when it is
  applied, and what became of every line. ``report`` says it to people.
"""

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.flexnet import FLEXNET
from seatkeeper.client.imports.made import Refusal, Renamed
from seatkeeper.client.imports.parsed import Became, Outcome
from seatkeeper.client.imports.report import report_lines
from seatkeeper.client.imports.rlm import RLM
from seatkeeper.client.imports.translation import (
    FILE_BYTES_MAX,
    Translation,
    translate,
)

__all__ = [
    "FILE_BYTES_MAX",
    "FLEXNET",
    "RLM",
    "Became",
    "Dialect",
    "Outcome",
    "Refusal",
    "Renamed",
    "Translation",
    "report_lines",
    "translate",
]
