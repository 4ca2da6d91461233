"""``seatkeeper adopt``: the step between restoring etcd and starting nodes on it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.processes.common import run_loop, settings_app
from seatkeeper.cli.render import say
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from seatkeeper.server.config import AdoptConfig


def _settings() -> type[BaseModel] | None:
    try:
        from seatkeeper.server.config import AdoptConfig
    except ModuleNotFoundError:
        return None
    return AdoptConfig


def _adopt(config: Path | None, flags: dict[str, Any]) -> None:
    """Take a restored, copied or wiped etcd for the service's own, before nodes are started on it.

    Stop all nodes first. It waits until no holder can believe any more in a seat that the snapshot
    does not know of, raises all fences above those that were given out, and writes a new
    deployment id.

    It has the settings of a node, of which only those for etcd and `prefix` count, and `adopt_wait`.
    """
    try:
        from seatkeeper.core.serving.settings import load_settings
        from seatkeeper.server.config import AdoptConfig, ConfigError
    except ModuleNotFoundError:
        fail(Exit.CONFIG, explain("this command", "server"))
    try:
        settings = load_settings(AdoptConfig, config, flags)
    except ConfigError as error:
        fail(Exit.CONFIG, str(error))
    if settings.store != "etcd":
        fail(Exit.CONFIG, "store: only etcd can be adopted")
    run_loop(_run(settings))


async def _run(settings: AdoptConfig) -> None:
    from seatkeeper.server.deployment.adopt import AdoptError, Adoption
    from seatkeeper.server.node import open_store
    from seatkeeper.server.store import StoreError
    from seatkeeper.server.store.keys import Keys

    store = open_store(settings)
    try:
        adoption = Adoption(store, Keys(settings.prefix), _say)
        made = await adoption.run(timedelta(seconds=settings.adopt_wait))
    except AdoptError as error:
        fail(Exit.FAILED, str(error))
    except StoreError as error:
        fail(Exit.UNAVAILABLE, f"etcd at {settings.etcd_endpoints}: {error}")
    finally:
        await store.close()
    say(
        f"deployment {made}: nodes may be started now; where `deployment` is set, set it to this"
    )


def _say(sentence: str) -> None:
    say(sentence, stderr=True)


_adopt.__name__ = "adopt"
app = settings_app(_adopt, _settings())
