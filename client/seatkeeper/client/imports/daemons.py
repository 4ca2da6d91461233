"""Whose options file is whose: a vendor's server has one, and reads no other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.seats import Features, Pool
from seatkeeper.client.imports.statement import Statement


class Daemons:
    """The vendors of licence files, and the options file of each."""

    def __init__(
        self, dialect: Dialect, features: Features, statements: Iterable[Statement]
    ) -> None:
        self._of_vendor: dict[str, list[Pool]] = {}
        for (vendor, _), pool in features.pools.items():
            self._of_vendor.setdefault(vendor, []).append(pool)
        self._of_file: dict[str, set[str]] = {}
        self._dialect = dialect
        for statement in statements:
            if statement.keyword in dialect.daemons and statement.rest:
                vendor, *paths = statement.rest
                for path in paths[:4]:
                    file = _file(path.rpartition("=")[2])
                    self._of_file.setdefault(file, set()).add(dialect.key(vendor))

    def pools(self, file: str) -> list[Pool] | None:
        """Return all pools of the vendor whose options file it is; None: it is not known whose.

        It is said by the line of the vendor's server, or by the name, which is ``VENDOR.opt`` unless
        that line says another. Where there is one vendor only, all files are of it.
        """
        if len(self._of_vendor) <= 1:
            return next(iter(self._of_vendor.values()), [])
        said = self._of_file.get(_file(file), set()) & self._of_vendor.keys()
        if len(said) == 1:
            return self._of_vendor[said.pop()]
        return self._of_vendor.get(self._dialect.key(_file(file).removesuffix(".opt")))


def _file(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
