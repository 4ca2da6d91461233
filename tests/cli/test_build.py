"""``seatkeeper build`` and ``seatkeeper engines``: a real model, agent and compiler."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx.backend.test
import pytest
from tests.builder.models import conv_net, relu_chain
from tests.cli.commands import (
    SCRIPT,
    SECONDS_MAX,
    Result,
    Running,
    address_of,
    environment,
    eventually,
    started,
)
from tests.cli.conftest import Cluster
from tests.cli.terminal import Terminal

from seatkeeper.cli.exits import Exit

MODELS = Path(onnx.backend.test.__file__).parent / "data" / "light"
MODEL = str(MODELS / "light_squeezenet.onnx")


@dataclass(frozen=True)
class BuildRunner:
    """A node with an agent, and a pool of one seat for it."""

    cluster: Cluster
    pool: str
    agent: Running

    def __call__(self, *arguments: str) -> Result:
        return self.cluster.here(*arguments)

    def build(self, *arguments: str) -> Result:
        return self.cluster.here("build", *arguments)


@dataclass(frozen=True)
class Built:
    """An engine that was built by command."""

    said: dict[str, Any]
    progress: str
    file: Path


@pytest.fixture(scope="module")
def build_runner(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BuildRunner]:
    pool = cluster.pool()
    folder = tmp_path_factory.mktemp("agent")
    flags = ("--listen", "127.0.0.1:0", "--nodes", cluster.address, "--pool", pool)
    with started(
        "agent",
        *flags,
        "--agent-id",
        "a-1",
        "--engines",
        str(folder / "engines"),
        folder=folder,
    ) as agent:
        agent.says('"serving"')
        assert address_of(agent)
        yield BuildRunner(cluster, pool, agent)
        agent.send(signal.SIGTERM)
        agent.ends().check()


@pytest.fixture(scope="module")
def built(build_runner: BuildRunner, tmp_path_factory: pytest.TempPathFactory) -> Built:
    file = tmp_path_factory.mktemp("built") / "squeezenet.engine"
    options = ("--target", "SM86", "--workspace", "64MiB", "--project", "cv")
    result = build_runner.build(MODEL, *options, "--output", str(file), "--json").check()
    return Built(result.json, result.err, file)


def test_a_build_says_what_it_made(build_runner: BuildRunner, built: Built) -> None:
    said = built.said
    assert (said["cached"], said["project"], said["pool"]) == (False, "cv", build_runner.pool)
    assert (said["targets"], said["workspace_bytes"]) == (["SM86"], 64 << 20)
    assert said["path"] == str(built.file)
    assert said["size_bytes"] == built.file.stat().st_size
    assert said["fence"] == build_runner.cluster.look(build_runner.pool).fence
    assert build_runner.cluster.look(build_runner.pool).held == 0


def test_what_was_built_before_needs_no_seat(build_runner: BuildRunner, built: Built) -> None:
    fence = build_runner.cluster.look(build_runner.pool).fence
    result = build_runner.build(MODEL, "--target", "SM86", "--workspace", "64 MiB").check()
    assert "nothing was built" in result.out
    assert built.said["key"] in result.out
    assert f"seatkeeper engines get {built.said['key'][:16]}" in result.out
    assert build_runner.cluster.look(build_runner.pool).fence == fence


def test_engines_are_listed_fetched_and_verified(
    build_runner: BuildRunner, built: Built, tmp_path: Path
) -> None:
    key = built.said["key"]
    engines = build_runner("engines", "list", "--json").check().json["engines"]
    (listed,) = [engine for engine in engines if engine["key"] == key]
    assert len(listed["addresses"]) == 1
    assert key[:16] in build_runner("engines", "list").check().out

    copy, manifest = tmp_path / "copy", tmp_path / "manifest"
    get = ("engines", "get", key[:12], "--output", str(copy), "--manifest", str(manifest))
    fetched = build_runner(*get, "--json").check().json
    assert copy.read_bytes() == built.file.read_bytes()
    assert fetched["sha256"] == built.said["sha256"]

    verify = ("engines", "verify", str(copy))
    assert build_runner(*verify, "--json").check().json["key"] == key
    assert build_runner(*verify, key).check().out.startswith("verified")
    signer = build_runner("status", "--json").json["agents"][0]["public_key"]
    offline = (*verify, "--manifest", str(manifest), "--nodes", "127.0.0.1:9")
    verified = build_runner(*offline, "--signer", signer, "--json").check().json
    assert (verified["verified"], verified["signer"]) == (True, signer)
    stranger = build_runner(*offline, "--signer", "ab" * 32)
    assert "another key" in stranger.refused(Exit.REFUSED)

    jws = manifest.with_suffix(".jws")
    build_runner("engines", "get", key, "-o", str(copy), "--manifest", str(jws)).check()
    by_jws = (*verify, "--manifest", str(jws), "--nodes", "127.0.0.1:9")
    assert build_runner(*by_jws, "--signer", signer, "--json").check().json["key"] == key
    assert "--signer" in build_runner(*by_jws).refused(Exit.USAGE)
    build_runner(*by_jws, "--signer", "ab" * 32).refused(Exit.REFUSED)

    copy.write_bytes(b"!" + copy.read_bytes()[1:])
    assert "do not hash" in build_runner(*by_jws, "--signer", signer).refused(Exit.REFUSED)
    assert "do not hash" in build_runner(*offline).refused(Exit.REFUSED)
    assert "no published engine" in build_runner(*verify).refused(Exit.REFUSED)
    assert build_runner(*verify, key).check(Exit.REFUSED)
    manifest.write_bytes(b"!" + manifest.read_bytes())
    build_runner(*offline).refused(Exit.REFUSED)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["get", "f" * 64, "-o", "{folder}/x"], Exit.NOT_FOUND),
        (["get", "ffffff", "-o", "{folder}/x"], Exit.NOT_FOUND),
        (["get", "ff", "-o", "{folder}/x"], Exit.USAGE),
        (["get", "../../etc/passwd", "-o", "{folder}/x"], Exit.USAGE),
        (["get", "f" * 64, "-o", "{folder}/absent/x"], Exit.NOT_FOUND),
        (["get", "f" * 64, "-o", "{folder}"], Exit.USAGE),
        (["verify", "{folder}/absent"], Exit.NOT_FOUND),
    ],
)
def test_an_engine_that_is_not_there(
    cluster: Cluster, tmp_path: Path, words: list[str], code: Exit
) -> None:
    cluster.here("engines", *(word.format(folder=tmp_path) for word in words)).refused(code)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_model_is_refused_and_takes_no_seat_along(
    build_runner: BuildRunner, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(Path(MODEL).read_bytes()[:5000])
    for model, options, why in (
        (write("text.onnx", "no model"), (), "not an ONNX model"),
        (broken, (), "breaks off"),
        (Path(MODEL), ("--profile", "unknown=1x3"), "unknown"),
    ):
        result = build_runner.build(str(model), "--target", "SM86", *options).check(
            Exit.REFUSED
        )
        assert result.out == ""
        assert why in result.err.splitlines()[-1]
    assert build_runner.cluster.look(build_runner.pool).held == 0


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (["absent.onnx", "--target", "SM86"], Exit.NOT_FOUND, "absent.onnx"),
        ([str(MODELS), "--target", "SM86"], Exit.NOT_FOUND, "not a file"),
        ([MODEL], Exit.USAGE, "SM86"),
        ([MODEL, "--target", "SM1"], Exit.USAGE, "SM1"),
        ([MODEL, "--target", "SM86", "--backend", "gcc"], Exit.USAGE, "gcc"),
        ([MODEL, "--target", "SM86", "--profile", "x=3:2:1"], Exit.USAGE, "min 3"),
        ([MODEL, "--target", "SM86", "--workspace", "lots"], Exit.USAGE, "lots"),
        ([MODEL, "--target", "SM86", "--optimisation-level", "6"], Exit.USAGE, "level"),
        ([MODEL, "--target", "SM86", "-o", "absent/x"], Exit.NOT_FOUND, "absent"),
        ([MODEL, "--target", "SM86", "--pool", "absent"], Exit.UNAVAILABLE, "status"),
        (
            [MODEL, "--target", "SM86", "--precision", "fp7"],
            Exit.USAGE,
            "there are model, fp32",
        ),
        ([MODEL, "--target", "SM86", "--precision", "fp8"], Exit.USAGE, "SM89 or newer"),
        ([MODEL, "--target", "SM86", "--precision", "int8"], Exit.USAGE, "calibration data"),
        ([MODEL, "--target", "SM86", "--tolerance", "few"], Exit.USAGE, "1%, or 0.01"),
        ([MODEL, "--target", "SM86", "--tolerance", "200%"], Exit.USAGE, "up to 1"),
        ([MODEL, "--target", "SM86", "--keep", "head"], Exit.USAGE, "fp32:/head/*"),
        ([MODEL, "--target", "SM86", "--calibration", "absent"], Exit.NOT_FOUND, "absent"),
        (
            [MODEL, "--target", "SM86", "--calibration", "python:absent:batches"],
            Exit.USAGE,
            "absent cannot be imported",
        ),
        ([MODEL, "--target", "SM86", "--samples", "python:os:name"], Exit.USAGE, "no function"),
        ([MODEL, "--target", "SM86", "--plugin", "absent.so"], Exit.NOT_FOUND, "absent.so"),
        (
            [MODEL, "--target", "SM86", "--plugin", "sha256:ab"],
            Exit.USAGE,
            "no hash of a plugin",
        ),
        ([MODEL, "--target", "SM86", "--precision", "bf16"], Exit.USAGE, "--accept-unchecked"),
        (
            [MODEL, "--target", "SM89", "--precision", "fp8"],
            Exit.USAGE,
            "fp8 needs calibration data",
        ),
        ([MODEL, "--target", "SM86", "--samples", "absent"], Exit.NOT_FOUND, "absent"),
        ([MODEL, "--target", "SM86", "--images", "large"], Exit.USAGE, "such as 224x224"),
        ([MODEL, "--target", "SM86", "--calibration-method", "x"], Exit.USAGE, "minmax"),
    ],
)
def test_what_cannot_be_built_as_asked_is_said_at_once(
    cluster: Cluster, options: list[str], code: Exit, why: str
) -> None:
    assert why in cluster.here("build", *options).refused(code)


def test_an_engine_of_another_precision_says_how_accurate_it_is(
    build_runner: BuildRunner, tmp_path: Path
) -> None:
    model, inputs = tmp_path / "net.onnx", tmp_path / "inputs.npz"
    model.write_bytes(conv_net().SerializeToString())
    random = np.random.default_rng(3)
    np.savez(inputs, x=random.normal(0, 1, (10, 1, 3, 8, 8)).astype(np.float32))
    options = (str(model), "--target", "SM86", "--profile", "x=1x3x8x8", "--precision", "auto")
    sampled = (*options, "--calibration", str(inputs))

    said = build_runner.build(*sampled, "--tolerance", "5%", "--json").check().json["precision"]
    assert (said["asked"], said["precision"], said["refused"]) == ("auto", "int8+fp16", [])
    assert said["accuracy"]["proven"]
    assert said["accuracy"]["outputs"][0]["relative_l2"] < 0.05

    function = tmp_path / "data.py"
    function.write_text(
        f"import numpy as np\ndef batches():\n  print('reading')\n  for x in np.load({str(inputs)!r})"
        "['x']:\n    yield {'x': x}\n"
    )
    called = ("--calibration", f"python:{function}:batches", "--tolerance", "6%", "--json")
    assert (
        build_runner.build(*options, *called).check().json["precision"]["shares"]
        == said["shares"]
    )

    shown = build_runner.build(*sampled, "--tolerance", "0.2%").check().out
    assert re.search(r"precision +fp16 \(of auto\)", shown)
    assert re.search(r"not taken +int8\+fp16: ", shown)
    assert re.search(r"accuracy +differs by 0\.0", shown)
    unproven = build_runner.build(*options, "--json").check().json
    assert not unproven["precision"]["accuracy"]["proven"]
    get = ("engines", "get", unproven["key"], "--output", str(tmp_path / "engine"))
    assert "accuracy is unproven" in build_runner(*get).check().err
    events = build_runner(*get, "--json").check().err
    assert json.loads(events)["event"] == "accuracy_unproven"

    strict = (*sampled[:-4], "--precision", "int8", *sampled[-2:], "--tolerance", "0.001%")
    refused = build_runner.build(*strict).check(Exit.REFUSED)
    assert "most harm is done by" in refused.err.splitlines()[-1]
    assert build_runner.cluster.look(build_runner.pool).held == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--strip-weights"], "strip_weights: tensorrt_rtx calls CUDA for it"),
        (["--refit", "--version-compatible"], "libnvinfer_lean.so.1"),
        (["--hardware-compatible"], "name each with --target"),
        (["--plugin", f"sha256:{'ab' * 32}"], "administrator lists (setting `plugins`)"),
    ],
)
def test_what_no_agent_can_do_is_refused_before_a_seat_is_waited_for(
    build_runner: BuildRunner, options: list[str], why: str
) -> None:
    with build_runner.cluster.client.seat(build_runner.pool):
        refused = build_runner.build(MODEL, "--target", "SM86", *options).check(
            Exit.UNAVAILABLE
        )
    assert why in refused.err


def test_an_engine_that_nothing_measured_says_so(
    build_runner: BuildRunner, tmp_path: Path
) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(conv_net().SerializeToString())
    options = (str(model), "--target", "SM86", "--profile", "x=1x3x8x8", "--precision", "bf16")
    shown = build_runner.build(*options, "--accept-unchecked").check().out
    assert re.search(r"precision +bf16: .*nodes in bf16", shown)
    assert re.search(r"accuracy +unchecked: converted, and not compared", shown)
    said = build_runner.build(*options, "--accept-unchecked", "--json").check().json
    assert (said["precision"]["unchecked"], said["precision"]["accuracy"]) == (True, None)
    get = ("engines", "get", said["key"], "--output", str(tmp_path / "engine"))
    assert "its accuracy is unchecked" in build_runner(*get).check().err


def test_an_engine_is_timed_on_a_gpu_alone(build_runner: BuildRunner, built: Built) -> None:
    for options in ((), ("--json",)):
        refused = build_runner("engines", "bench", str(built.file), *options).check(Exit.CONFIG)
        assert "tensorrt_rtx runs engines on a GPU, and this machine has none" in refused.err
    assert "absent" in build_runner("engines", "bench", "absent").check(Exit.NOT_FOUND).err


def test_a_build_waits_for_its_seat_and_gives_up_in_time(
    build_runner: BuildRunner, built: Built
) -> None:
    other = ("--target", "SM89")
    with build_runner.cluster.client.seat(build_runner.pool):
        waited = build_runner.build(MODEL, *other, "--wait", "2").check(Exit.NO_SEAT)
        assert "waiting for a seat: place 1" in waited.err
        with Terminal(
            "build", MODEL, *other, SEATKEEPER_NODES=build_runner.cluster.address
        ) as terminal:
            terminal.shows("place 1")
            terminal.type("\x03")
            assert terminal.ends() == Exit.INTERRUPTED
        assert build_runner.cluster.look(build_runner.pool).queued == 0


def test_a_build_on_a_terminal_shows_a_bar_and_then_a_summary(
    build_runner: BuildRunner,
) -> None:
    command = ("build", MODEL, "--target", "SM75")
    with Terminal(*command, SEATKEEPER_NODES=build_runner.cluster.address) as terminal:
        assert terminal.ends() == 0
        seen = terminal.seen
    assert "━" in seen
    assert re.search(r"outcome +built now", seen)


def test_in_a_file_what_a_build_is_at_is_a_line_for_each_phase(
    build_runner: BuildRunner,
) -> None:
    progress = build_runner.build(MODEL, "--target", "SM120").check().err
    for phase in ("checking", "building", "publishing"):
        assert f"light_squeezenet.onnx: {phase} after" in progress


def test_for_programs_what_a_build_is_at_is_an_object_a_line(built: Built) -> None:
    events = [json.loads(line) for line in built.progress.splitlines()]
    assert [event["event"] for event in events] == ["estimated", *["progress"] * 5]
    phases = [event["phase"] for event in events[1:]]
    assert phases == ["receiving", "checking", "parsing", "building", "publishing"]


def test_for_programs_the_place_in_the_queue_is_an_object_too(
    build_runner: BuildRunner,
) -> None:
    with build_runner.cluster.client.seat(build_runner.pool):
        options = ("--target", "SM89", "--wait", "2", "--json")
        waited = build_runner.build(MODEL, *options).check(Exit.NO_SEAT)
    events = [json.loads(line) for line in waited.err.splitlines() if '"queued"' in line]
    assert [event["position"] for event in events] == [1]


def test_an_agent_that_is_paused_is_given_up_and_the_seat_is_free(
    build_runner: BuildRunner,
) -> None:
    build_runner.agent.send(signal.SIGSTOP)
    try:
        given_up = build_runner.build(MODEL, "--target", "SM80", "--wait", "5")
    finally:
        build_runner.agent.send(signal.SIGCONT)
    assert given_up.code == Exit.UNAVAILABLE
    assert build_runner.cluster.look(build_runner.pool).held == 0


def test_what_is_no_node_is_called_so(build_runner: BuildRunner) -> None:
    """A build agent's port, taken for a node's."""
    # One that was paused comes back by itself.
    eventually(lambda: build_runner("status", "--json").json["agents"])
    agent = build_runner("status", "--json").json["agents"][0]["address"]
    said = build_runner("pool", "list", "--nodes", agent).check(Exit.USAGE).err
    assert "does not know this call" in said
    assert "check the address" in said


def test_the_summary_is_one_object(built: Built) -> None:
    assert json.loads(json.dumps(built.said)) == built.said
    assert {"key", "sha256", "size_bytes", "fence", "cached", "waited_seconds"} <= {*built.said}
    assert built.said["build_seconds"] > 0


def test_the_engine_is_not_written_over_the_model(
    build_runner: BuildRunner, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    link = tmp_path / "link.engine"
    link.hardlink_to(model)
    for output in (model, link):
        refused = build_runner.build(str(model), "--target", "SM86", "--output", str(output))
        assert "that is the model" in refused.refused(Exit.USAGE)
    assert model.read_bytes() == b"a model"


@pytest.mark.parametrize(
    "locale",
    [{}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["as it is", "ascii"],
)
def test_files_may_have_names_that_are_not_utf8(
    build_runner: BuildRunner, built: Built, tmp_path: Path, locale: dict[str, str]
) -> None:
    del built  # so that nothing is built here
    model = os.fsencode(tmp_path) + b"/mod\xe9le.onnx"
    to, manifest = (
        os.fsencode(tmp_path) + b"/out\xe9",
        os.fsencode(tmp_path) + b"/\xff.manifest",
    )
    os.symlink(MODEL, model)
    environ = environment(SEATKEEPER_NODES=build_runner.cluster.address, **locale)

    def command(*arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [SCRIPT, *arguments], capture_output=True, env=environ, timeout=120, check=False
        )
        assert done.returncode == 0, done
        assert done.stderr.isascii()
        return done

    options = ("--target", "SM86", "--workspace", "64MiB")
    said = json.loads(command("build", model, *options, "--output", to, "--json").stdout)
    assert os.fsencode(said["path"]) == to
    copy = to + b"2"
    command("engines", "get", said["key"], "-o", copy, "--manifest", manifest)
    assert Path(os.fsdecode(copy)).read_bytes() == Path(os.fsdecode(to)).read_bytes()
    command("engines", "verify", copy, "--manifest", manifest)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
)
def test_a_build_that_waits_dies_of_what_ends_it_and_leaves_the_queue(
    build_runner: BuildRunner, tmp_path: Path, number: signal.Signals
) -> None:
    cluster, pool = build_runner.cluster, build_runner.pool
    command = ("build", MODEL, "--target", "SM86", "--workspace", "33MiB")
    with (
        cluster.client.seat(pool),
        started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as build,
    ):
        build.says("waiting for a seat")
        build.send(number)
        assert build.process.wait(SECONDS_MAX) == -number
        eventually(lambda: cluster.look(pool).queued == 0, "it leaves the queue")
    assert f"ended by {number.name}" in build.err.splitlines()[-1]


@pytest.mark.parametrize("streams", ["2>/dev/full", "0<&- 2>&-", "--json 2>/dev/full"])
def test_a_build_does_not_depend_on_who_reads(
    build_runner: BuildRunner, tmp_path: Path, streams: str
) -> None:
    """Each is a build of its own: another workspace, another engine."""
    options = f"--target SM86 --workspace {34 + len(streams)}MiB --output {tmp_path}/engine"
    done = subprocess.run(
        ["bash", "-c", f"seatkeeper build {MODEL} {options} {streams}"],
        env=environment(SEATKEEPER_NODES=build_runner.cluster.address),
        stdout=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "engine").stat().st_size > 0


def test_outputs_are_checked_before_anything_is_asked(
    build_runner: BuildRunner, built: Built, tmp_path: Path
) -> None:
    (tmp_path / "linked").symlink_to("same")
    same, linked = str(tmp_path / "same"), str(tmp_path / "linked")
    nowhere = ("--nodes", "127.0.0.1:9")
    for get in (
        ("-o", same, "--manifest", same),
        ("-o", linked, "--manifest", same),
        ("-o", "/dev/stdout", "--json"),
        ("-o", "-", "--json"),
        ("-o", "-", "--manifest", "-"),
        ("-o", str(tmp_path)),
        ("-o", same, "--manifest", str(tmp_path / ("x" * 300))),
    ):
        done = build_runner("engines", "get", built.said["key"], *get, *nowhere).check(
            Exit.USAGE
        )
        assert (done.out, len(done.err.splitlines())) == ("", 1)
    absent = ("-o", same, "--manifest", str(tmp_path / "absent/m"))
    refused = build_runner("engines", "get", built.said["key"], *absent, *nowhere)
    assert "--manifest" in refused.refused(Exit.NOT_FOUND)
    assert {path.name for path in tmp_path.iterdir()} == {"linked"}


def test_an_engine_goes_where_standard_output_goes(
    build_runner: BuildRunner, built: Built, tmp_path: Path
) -> None:
    environ = environment(SEATKEEPER_NODES=build_runner.cluster.address)
    get = [SCRIPT, "engines", "get", built.said["key"], "--output", "/dev/stdout"]
    piped = subprocess.run(get, capture_output=True, env=environ, timeout=60, check=True)
    assert piped.stdout == built.file.read_bytes()
    assert b"sha256" in piped.stderr
    short = subprocess.run(
        [*get[:-1], "-"], capture_output=True, env=environ, timeout=60, check=True, cwd=tmp_path
    )
    assert short.stdout == built.file.read_bytes()
    assert not list(tmp_path.iterdir())
    with (tmp_path / "file").open("wb") as file:
        subprocess.run(get, stdout=file, env=environ, timeout=60, check=True)
    assert (tmp_path / "file").read_bytes() == built.file.read_bytes()
    build_runner("engines", "get", built.said["key"], "-o", "/dev/null", "--json").check()
    assert Path("/dev/null").is_char_device()
    full = build_runner("engines", "get", built.said["key"], "-o", "/dev/full").check(
        Exit.FAILED
    )
    assert "/dev/full: No space left" in full.err


# What a build is expected to take -------------------------------------------------------------


def test_what_was_expected_is_said_first_and_beside_the_truth(built: Built) -> None:
    events = [json.loads(line) for line in built.progress.splitlines()]
    assert events[0] == {"event": "estimated", "estimate": built.said["estimate"]}
    assert built.said["stats"]["nodes"] > 50
    assert built.said["stats"]["peak_memory_bytes"] > 50 << 20
    assert built.said["stats"]["seat_seconds"] >= built.said["build_seconds"]


def test_a_like_build_is_estimated_and_compared(
    build_runner: BuildRunner, built: Built
) -> None:
    result = build_runner.build(MODEL, "--target", "SM89", "--workspace", "64MiB").check()
    assert "expected: " in result.err
    assert "of them like it" in result.err
    (took,) = [line for line in result.out.splitlines() if line.startswith("took")]
    assert "expected: " in took

    again = build_runner.build(MODEL, "--target", "SM120", "--json").check().json
    assert again["estimate"]["builds"] >= again["estimate"]["like"] >= 2
    seconds = again["estimate"]["build_seconds"]
    assert 0 < seconds["low"] < seconds["likely"] < seconds["high"]


def test_a_deadline_that_passes_stops_the_build(
    build_runner: BuildRunner, tmp_path: Path
) -> None:
    """Nothing like it was built, so only time shows it."""
    chain = tmp_path / "chain.onnx"
    chain.write_bytes(relu_chain(10_000))
    result = build_runner.build(str(chain), "--target", "SM86", "--deadline", "4s")
    assert "the deadline passed" in result.check(Exit.FAILED).err.splitlines()[-1]
    eventually(lambda: build_runner.cluster.look(build_runner.pool).held == 0)


def test_a_build_that_may_wait_starts_at_once_where_it_is_quiet(
    build_runner: BuildRunner, built: Built
) -> None:
    options = ("--target", "SM86", "--workspace", "66MiB", "--when", "off-peak", "--json")
    result = build_runner.build(MODEL, *options).check()
    assert "delayed" not in result.err, "it is quiet"
    assert not result.json["cached"]
    wrong = build_runner.build(MODEL, "--target", "SM86", "--when", "whenever")
    assert "off-peak" in wrong.refused(Exit.USAGE)


def test_a_deadline_that_cannot_be_kept_takes_no_seat(
    build_runner: BuildRunner, tmp_path: Path
) -> None:
    """One like it was built, and took seconds; the last here, since other estimates learn from it."""
    chain = tmp_path / "chain.onnx"
    chain.write_bytes(relu_chain(3000))
    build_runner.build(str(chain), "--target", "SM86").check()
    fence = build_runner.cluster.look(build_runner.pool).fence
    options = ("--target", "SM86", "--workspace", "65MiB", "--deadline", "1s")
    result = build_runner.build(str(chain), *options)
    reason = result.refused(Exit.FAILED)
    assert "the deadline is in 1.0 s, and the build is expected to take" in reason
    assert build_runner.cluster.look(build_runner.pool).fence == fence
