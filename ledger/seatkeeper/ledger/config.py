"""The settings of a ledger."""

from __future__ import annotations

from pydantic import Field, field_validator

from seatkeeper.server.config import NodeConfig

DATABASE_DEFAULT = "sqlite:///seatkeeper-ledger.db"


class LedgerConfig(NodeConfig):
    """The settings of ``seatkeeper ledger``: those of a node, so that it reads the same file."""

    ledger_database: str = Field(
        default=DATABASE_DEFAULT,
        description=(
            "URL of the database: sqlite:////var/lib/seatkeeper/ledger.db, or "
            "postgresql+psycopg://USER@HOST/NAME."
        ),
    )
    ledger_name: str = Field(
        default="default",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="Which of the ledgers in that database is written.",
    )

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str) -> str:
        if value != "etcd":
            raise ValueError("a ledger reads etcd; there is none of a store in memory")
        return value
