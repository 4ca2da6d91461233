"""``seatkeeper pool edit``: a pool's file in an editor, and what it would change.

What was written is never lost: the file is removed when it is applied, or says nothing new, and is
named in every other case.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.lots import now_millis
from seatkeeper.cli.pool_plan import (
    Force,
    planned_for,
    show_meanwhile,
    show_plan,
    stop_at_obstacles,
    stop_at_promises,
)
from seatkeeper.cli.render import ask, say
from seatkeeper.core.errors import PoolsChanged, SeatError

if TYPE_CHECKING:
    from seatkeeper.client.pools_file import Plan
    from seatkeeper.v1 import pool_service_pb2 as pb

ROUNDS_MAX = 20
"""How often a file with faults is edited again."""
LOOK_SECONDS = 0.2
"""How long Ctrl-C may go unnoticed while an answer is waited for."""
HEADER = """\
# Pool {name}. What you write here is checked and shown as a plan when the editor ends, and
# applied when you agree. Written as it is, it changes nothing.
"""
BY_FILE = "`seatkeeper pool show NAME --yaml` writes the file, and `seatkeeper pool apply -f` reads it"


@connected
async def edit(
    at: Connection,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the pool.", autocompletion=completion.pools
        ),
    ],
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", help="Why, for the nodes' log; at most 500 characters."
        ),
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Apply without asking; for editors that are programs.")
    ] = False,
    force: Force = False,
) -> None:
    """Edit a pool as a file, see what that changes, and apply it.

    The editor is VISUAL, or EDITOR, with its arguments. A file with faults may be edited again. When
    others have changed the pool meanwhile, nothing is applied, and what they changed is
    shown. Whenever something is not applied, the file is kept, and its path is printed.
    """
    editor = _editor(at, may_ask=not yes)
    async with at.client() as client:
        seen = await client.pools.get(name)
    file, text = _begun(seen.spec)
    planned = _edited(editor, file, text, seen, may_ask=not yes)
    if planned is None:
        shutil.rmtree(file.parent)
        say(f"pool {name} is as it was: nothing was changed")
        return
    with _kept(file):
        show_plan(planned)
        stop_at_obstacles(planned)
        stop_at_promises(planned, force=force)
        if not yes and not _agrees("apply this? [y/N] "):
            fail(Exit.FAILED, "not applied")
        async with at.client() as client:
            try:
                revision = await client.pools.apply(planned.messages(), reason=reason)
            except PoolsChanged as error:
                show_meanwhile(at, [seen], await client.pools.list(), error)
    shutil.rmtree(file.parent)
    say(f"applied at revision {revision}")


def _editor(at: Connection, *, may_ask: bool) -> list[str]:
    """Return the editor's command; end the command without one, or a terminal to ask at."""
    if at.json:
        fail(Exit.USAGE, f"--json: `pool edit` is for people; {BY_FILE}")
    if may_ask and not (sys.stdin and sys.stdin.isatty() and os.isatty(1)):
        fail(
            Exit.USAGE, f"there is no terminal to ask at; give --yes, or use a file: {BY_FILE}"
        )
    variable = next(
        (each for each in ("VISUAL", "EDITOR") if os.environ.get(each, "").strip()), ""
    )
    if not variable:
        fail(
            Exit.USAGE,
            f"set VISUAL or EDITOR to your editor, such as `EDITOR=vi`; or {BY_FILE}",
        )
    try:
        return shlex.split(os.environ[variable])
    except ValueError as error:
        fail(Exit.USAGE, f"{variable}={os.environ[variable]!r} cannot be read: {error}")


def _begun(spec: pb.PoolSpec) -> tuple[Path, str]:
    """Write what is to be edited, for its user alone; return the file and its text."""
    from seatkeeper.client.pools_file import write_pools

    text = HEADER.format(name=spec.name) + write_pools([spec])
    file = Path(tempfile.mkdtemp(prefix="seatkeeper-edit-")) / f"{spec.name}.yaml"
    file.write_text(text, encoding="utf-8")
    return file, text


def _edited(
    editor: Sequence[str], file: Path, text: str, seen: pb.Pool, *, may_ask: bool
) -> Plan | None:
    """Have a file edited until it has no fault; return what it changes, None: nothing.

    The command ends, and the file is kept, when the editor fails or it is not to be edited again.
    """
    with _kept(file):
        for _ in range(ROUNDS_MAX):
            _run(editor, file)
            data = file.read_bytes()
            if data == text.encode():
                return None
            wanted = _pool_in(data, file, seen.spec.name)
            if wanted is not None:
                planned = planned_for(wanted, [seen], delete_missing=False)
                return planned if planned.changes_anything else None
            if not may_ask or not _agrees("edit it again? [y/N] "):
                break
        fail(Exit.REFUSED, "the file has faults, and nothing was changed")
    raise AssertionError("the file is planned, or the command ends")


def _run(editor: Sequence[str], file: Path) -> None:
    shown = shlex.join(editor)
    with _interrupts(lambda *_: None):  # Ctrl-C is the editor's
        try:
            done = subprocess.run([*editor, str(file)], check=False)
        except OSError as error:
            fail(Exit.FAILED, f"the editor {shown} cannot be started: {error.strerror}")
    if done.returncode:
        how = f"exit code {done.returncode}" if done.returncode > 0 else "a signal"
        fail(Exit.FAILED, f"the editor {shown} ended with {how}; nothing was changed")


def _pool_in(data: bytes, file: Path, name: str) -> dict[str, pb.PoolSpec] | None:
    """Return the pool that a file describes; None: it has faults, which were shown."""
    from seatkeeper.client.pools_file import read_pools

    found = read_pools(data, now_millis=now_millis())
    for fault in found.faults:
        say(f"{file}:{fault}", stderr=True)
    if found.faults:
        return None
    if set(found.pools) != {name}:
        others = ", ".join(sorted(found.pools)) or "none"
        said = f"is to have the pool {name} and no other, and has {others}; `pool apply -f` changes "
        say(f"{file}: {said}several, and makes new ones", stderr=True)
        return None
    return dict(found.pools)


def _agrees(question: str) -> bool:
    """Ask; only ``y`` and ``yes`` are a yes."""
    with _interrupts(signal.default_int_handler):
        try:
            ask(question)
            # Ctrl-C may come to a thread of gRPC's, which would not wake one that reads.
            while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
                pass
            return sys.stdin.readline().strip().lower() in {"y", "yes"}
        except KeyboardInterrupt:
            say("")
            return False


@contextmanager
def _kept(file: Path) -> Iterator[None]:
    """Say where a file is when what it says is not applied."""
    try:
        yield
    except (SystemExit, typer.Exit, SeatError, OSError):
        if file.exists():  # the editor may have removed it
            say(f"what you wrote is kept in {file}", stderr=True)
        raise


@contextmanager
def _interrupts(handler: signal._HANDLER) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
