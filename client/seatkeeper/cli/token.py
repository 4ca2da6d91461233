"""``seatkeeper token``: what a token proves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import jwt
import typer

from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection, Json
from seatkeeper.cli.encoding import as_json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import facts, say, show, write_json
from seatkeeper.core.amounts import span
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.tokens import TOKEN_BYTES_MAX, TokenClaims, verify_token

app = typer.Typer(
    help="Verify and show tokens: signed proof of a seat, good for as long as its lease.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

SHOWN_AS = {
    "grant_id": "grant",
    "issued_at": "issued",
    "expires_at": "expires",
    "key_id": "key",
    "certificate_sha256": "certificate",
}
"""What people call a claim, where that is shorter."""

TokenFile = Annotated[
    str, typer.Argument(metavar="FILE", help="File with the token; -: stdin.")
]


@app.command(
    epilog=examples(
        "seatkeeper token jwks > keys.json",
        "seatkeeper run -- sh -c 'seatkeeper token verify $SEATKEEPER_TOKEN_FILE --jwks keys.json'",
    )
)
def verify(
    file: TokenFile,
    jwks: Annotated[
        Path,
        typer.Option("--jwks", metavar="FILE", help="Public keys: what `token jwks` wrote."),
    ],
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="NAME", help="The pool that the token must be for."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a token without asking anybody; exit 65 and say why when it proves nothing.

    It proves that the seat was granted, and that its lease had not ended when the token was
    signed; not that it has not been revoked since.
    """
    keys = _read(str(jwks))
    try:
        claims = verify_token(_token(file), keys, pool=pool)
    except InvalidArgument as error:
        why = str(error).removeprefix("jwks ")
        fail(Exit.REFUSED, f"{jwks} {why}; `seatkeeper token jwks` fetches one")
    if as_json:
        write_json(_claims_json(claims))
        return
    left = claims.expires_at - datetime.now(UTC)
    rows = [(SHOWN_AS.get(name, name), _said(value)) for name, value in _claims(claims)]
    show(facts([("valid for", span(left)), *rows]))


@app.command(
    "show",
    epilog=examples("seatkeeper run -- sh -c 'seatkeeper token show $SEATKEEPER_TOKEN_FILE'"),
)
def show_(file: TokenFile, as_json: Json = False) -> None:
    """Show what a token says, without checking whether it is true."""
    token = _token(file)
    try:
        header = jwt.get_unverified_header(token)
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        fail(Exit.REFUSED, f"not a token: {error}")
    if as_json:
        write_json({"verified": False, "header": header, "claims": claims})
        return
    say("not verified: `seatkeeper token verify` does that", stderr=True)
    pairs = [(name, _readable(name, value)) for name, value in (header | claims).items()]
    show(facts(pairs))


@app.command("jwks", epilog=examples("seatkeeper token jwks > keys.json"))
@connected
async def jwks_(at: Connection) -> None:
    """Fetch the public keys that verify tokens: a JSON Web Key Set (RFC 7517).

    Fetch it again when `verify` does not know a token's key: nodes have keys of their own.
    """
    async with at.client() as client:
        keys = json.loads(await client.cluster.jwks())
    print(as_json(keys, indent=None if at.json else 2))


def _token(file: str) -> str:
    token = _read(file).strip()
    if not token:
        fail(Exit.REFUSED, f"{'standard input' if file == '-' else file} holds no token")
    return token


def _read(file: str) -> str:
    """Return a small text file's contents; of a large one only enough to be refused."""
    try:
        if file == "-":
            return _read_input(64 * TOKEN_BYTES_MAX)
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(64 * TOKEN_BYTES_MAX)
    except FileNotFoundError:
        fail(Exit.NOT_FOUND, f"{file}: no such file")
    except UnicodeDecodeError:
        fail(Exit.REFUSED, f"{file} is not text")


def _read_input(size: int) -> str:
    try:
        return sys.stdin.read(size)
    except OSError as error:
        # Closed, or a folder.
        fail(Exit.REFUSED, f"standard input cannot be read: {error.strerror}")


def _readable(name: str, value: Any) -> str:  # noqa: ANN401  # any claim of a token
    if name in {"iat", "exp"} and isinstance(value, int | float):
        try:
            return datetime.fromtimestamp(value, UTC).isoformat()
        except (OverflowError, ValueError, OSError):
            pass
    return value if isinstance(value, str) else json.dumps(value)


def _claims(claims: TokenClaims) -> Iterator[tuple[str, Any]]:
    for claim in fields(claims):
        value = getattr(claims, claim.name)
        yield claim.name, value.isoformat() if isinstance(value, datetime) else value


def _said(value: Any) -> str:  # noqa: ANN401  # any claim of a token
    if isinstance(value, Mapping):
        value = " ".join(f"{name}={value[name]}" for name in sorted(value)) or None
    return "-" if value is None else str(value)


def _claims_json(claims: TokenClaims) -> dict[str, Any]:
    return {"valid": True, **dict(_claims(claims))}
