"""In a locale that knows ASCII alone, texts of others are shown and nothing breaks."""

from __future__ import annotations

import json

from tests.cases.place import Place

PLAIN = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def case(place: Place) -> None:
    place.start_node()
    described = "Lizenz f\u00fcr \u6a21\u578b"
    made = place.seatkeeper("pool", "create", "q", "--seats", "1", "--description", described)
    assert made.returncode == 0, made.stderr
    for words in (["pool", "list"], ["pool", "show", "q"], ["status"], ["status", "q"]):
        ended = place.seatkeeper(*words, env=PLAIN)
        said = (ended.stdout + ended.stderr).decode(errors="replace")
        assert ended.returncode == 0, f"{words}: exit code {ended.returncode}: {said[-300:]}"
        assert "Traceback" not in said, f"{words}: {said[-300:]}"
    listed = place.seatkeeper("pool", "list", "--json", env=PLAIN)
    pools = {each["name"]: each for each in json.loads(listed.stdout)["pools"]}
    assert pools["q"]["description"] == described, listed.stdout
    ended = place.seatkeeper("run", "--pool", "q", "--", "sh", "-c", "exit 4", env=PLAIN)
    assert ended.returncode == 4, ended
