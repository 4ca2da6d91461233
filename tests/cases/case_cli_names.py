"""Names that are not UTF-8, under any locale: files work, what cannot be sent is refused first."""

from __future__ import annotations

import json
import os

from tests.cases.place import Place

LATIN = b"caf\xe9"
STRICT = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def case(place: Place) -> None:
    """Build files in Latin-1 and in UTF-8, run arguments, and give names to the service."""
    place.start_agent()
    folder = os.fsencode(place.folder)
    original = place.model().read_bytes()
    for name, locale in (
        (b"mod\xe9le.onnx", {}),
        ("modèle.onnx".encode(), STRICT),
        (b"[red]\x1b[2J.onnx", {"LC_ALL": "C"}),
    ):
        model, to = folder + b"/" + name, folder + b"/" + name + b".engine"
        with open(model, "wb") as file:
            file.write(original)
        build = ("build", model, "--target", "8.6", "-o", to)
        done = place.seatkeeper(*build, "--json", env=locale)
        assert done.returncode == 0, (name, locale, done)
        assert os.fsencode(json.loads(done.stdout)["path"]) == to, (name, locale, done)
        shown = place.seatkeeper(*build, env=locale)
        assert shown.returncode == 0, (name, locale, shown)
        assert b"\x1b" not in shown.stdout + shown.stderr, (name, locale, shown)
    for locale in ({}, STRICT):
        ran = place.seatkeeper("run", "--pool", "p", "--", "printf", "%s", LATIN, env=locale)
        assert (ran.returncode, ran.stdout) == (0, LATIN), (locale, ran)
        holder = locale | {"SEATKEEPER_HOLDER": os.fsdecode(LATIN)}
        for refused in (
            place.seatkeeper("run", "--pool", LATIN, "--", "true", env=locale),
            place.seatkeeper(
                "run", "--pool", "p", "--project", LATIN, "--", "true", env=locale
            ),
            place.seatkeeper("run", "--pool", "p", "--", "true", env=holder),
            place.seatkeeper("status", LATIN, env=locale),
        ):
            assert refused.returncode == 2, (locale, refused)
            assert b"is not UTF-8" in refused.stderr, (locale, refused)
            assert b"no node answered" not in refused.stderr, (locale, refused)
