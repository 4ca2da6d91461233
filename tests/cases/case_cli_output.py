"""Output files: a device stays one, modes and links are kept, one file for two is refused first."""

from __future__ import annotations

import json
import os
import stat

from tests.cases.place import Place


def case(place: Place) -> None:
    """Build to a null device, through links, onto an old file, and where nothing can be written."""
    place.start_agent()
    model, folder = place.model(), place.folder
    built = place.seatkeeper(
        "build", model, "--target", "sm86", "-o", "/dev/null", "--json", timeout=300
    )
    assert built.returncode == 0, built
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode), "/dev/null is no device any more"
    key = json.loads(built.stdout)["key"]
    old = folder / "old"
    old.write_bytes(b"old")
    old.chmod(0o604)
    (folder / "hard").hardlink_to(old)
    (folder / "soft").symlink_to("new")
    for name in ("old", "soft", "x" * 255):
        got = place.seatkeeper("engines", "get", key, "-o", folder / name)
        assert got.returncode == 0, (name, got)
    engine = (folder / "new").read_bytes()
    assert (folder / "soft").is_symlink()
    assert (folder / "hard").read_bytes() == engine == old.read_bytes()
    assert stat.S_IMODE(old.stat().st_mode) == 0o604
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o666 & ~umask
    piped = place.seatkeeper("engines", "get", key, "-o", "/dev/stdout")
    assert piped.stdout == engine, piped.stderr
    for wrong in (
        ("-o", folder / "same", "--manifest", folder / "same"),
        ("-o", folder / "same", "--manifest", f"{folder}/./same"),
        ("-o", folder),
        ("-o", folder / ("x" * 256)),
        ("-o", folder / "absent" / "x"),
    ):
        refused = place.seatkeeper("engines", "get", key, *wrong, "--nodes", "127.0.0.1:9")
        assert refused.returncode in (2, 66), (wrong, refused)
        assert b"no node answered" not in refused.stderr, (wrong, refused)
    as_model = place.seatkeeper("build", model, "--target", "SM86", "-o", model)
    assert as_model.returncode == 2, as_model
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "left behind"
