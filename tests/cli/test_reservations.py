"""Reservations on the command line."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit

CI = "name=ci,seats=1,for=project:ci,when=MO,TU,at=22:00-06:00,zone=Europe/Berlin"
WHY = ("--reason", "tried")


def test_a_reservation_is_made_shown_changed_and_taken_out(
    cluster: Cluster, tmp_path: Path
) -> None:
    made = (
        cluster.here("pool", "create", "kept", "--seats", "2", "--reserve", CI, "--json")
        .check()
        .json
    )
    (one,) = made["reservations"]
    assert (one["name"], one["seats"], one["for"]["projects"]) == ("ci", 1, ["ci"])
    assert one["when"] == "MO,TU 22:00-06:00 Europe/Berlin"
    assert one["state"] in {"planned", "open"}
    assert one["begins"] < one["ends"]
    assert "ci " in cluster.here("pool", "show", "kept").check().out

    always = ("kept", "always", "--seats", "1", "--for", "holder:bob*", "--for", "project:ops")
    times = ("--when", "daily", "--at", "00:00-24:00")
    said = cluster.here("reservation", "create", *always, *times, *WHY).check().out
    assert "1 for project ops, holder bob*, daily 00:00-00:00 UTC" in said
    assert "open until" in said
    again = cluster.here("reservation", "create", *always, *times, *WHY)
    assert (again.code, "has a reservation always already" in again.err) == (Exit.USAGE, True)
    listed = cluster.here("reservation", "list", "kept", "--json").check().json["reservations"]
    assert [(each["pool"], each["name"]) for each in listed] == [
        ("kept", "ci"),
        ("kept", "always"),
    ]
    assert listed[1]["state"] == "open"

    file = tmp_path / "pools.yaml"
    file.write_text(cluster.here("pool", "show", "kept", "--yaml").check().out)
    assert cluster.here("pool", "plan", "-f", str(file), "--exit-code").code == 0
    demand = tmp_path / "demand.csv"
    demand.write_text("arrival,hold,project,seats\n0,60,cv,1\n")
    tried = cluster.here("pool", "simulate", "--trace", str(demand), "--like", "kept")
    assert (tried.code, "2 reservations" in tried.out) == (0, True)

    later = ("kept", "later", "--seats", "1", "--for", "holder:eve", "--notice", "10m")
    made = cluster.here(
        "reservation", "create", *later, *times, *WHY, "--from", "2099-01-01"
    ).check()
    assert "called back with a notice of 10 min" in made.out
    shown = cluster.here("pool", "show", "kept", "--yaml").check().out
    assert "notice: 600" in shown
    unread = cluster.here("reservation", "create", *later[:-1], "soon", *times, *WHY)
    assert (unread.code, "notice: " in unread.err) == (Exit.USAGE, True)
    cluster.here("reservation", "delete", "kept", "later", *WHY).check()
    cluster.here("pool", "update", "kept", "--without-reservation", "ci").check()
    cluster.here("reservation", "delete", "kept", "always", *WHY).check()
    missing = cluster.here("reservation", "delete", "kept", "always", *WHY)
    assert (missing.code, "has no reservation always" in missing.err) == (Exit.NOT_FOUND, True)
    assert "there is no reservation" in cluster.here("reservation", "list", "kept").check().out
    cluster.here("pool", "delete", "kept").check()


def test_what_cannot_be_kept_is_refused(cluster: Cluster) -> None:
    create = ("pool", "create", "wrong", "--seats", "2", "--reserve")
    unread = cluster.here(*create, "name=ci,seats=1")
    assert (unread.code, "does not say for=" in unread.err) == (Exit.USAGE, True)
    for wrong, said in (
        (CI.replace("Berlin", "Atlantis"), "there is no time zone Europe/Atlantis"),
        (CI.replace("seats=1", "seats=3"), "3 is more than the pool has seats: 2"),
        (CI.replace("MO,TU", "FREQ=DAILY;UNTIL=20200101"), "no day that is still to come"),
    ):
        refused = cluster.here(*create, wrong)
        assert refused.code != 0
        assert said in refused.err
