"""A node's settings: where they come from, and what a wrong one says."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from seatkeeper.server.config import ConfigError, NodeConfig, load_config


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment of the tests."""
    for name in list(os.environ):
        if name.startswith("SEATKEEPER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of settings."""
    file = tmp_path / "node.toml"
    file.write_text('listen = "127.0.0.1:1"\nprefix = "from-file"\nqueue_max = 7\n')
    return file


def wrong(file: Path | None = None, /, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, flags)
    return str(caught.value)


def test_without_any_setting_there_are_defaults() -> None:
    config = load_config(None, {})
    assert (config.listen, config.store, config.prefix) == (
        "127.0.0.1:7420",
        "etcd",
        "seatkeeper",
    )
    assert config.default_session_ttl == timedelta(seconds=15)


def test_two_nodes_of_one_machine_have_two_ids() -> None:
    assert load_config(None, {}).node_id != load_config(None, {}).node_id


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATKEEPER_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("SEATKEEPER_PREFIX", "from-environment")
    config = load_config(file, {"listen": "127.0.0.1:3", "prefix": None})

    assert config.listen == "127.0.0.1:3"
    assert config.prefix == "from-environment"
    assert config.queue_max == 7


def test_an_empty_variable_is_no_setting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATKEEPER_PREFIX", "")
    assert load_config(file, {}).prefix == "from-file"


def test_a_setting_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(None, {}).listen = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("node_id", "Not a name"),
        ("node_id", "-a"),
        ("listen", "7420"),
        ("listen", "host:"),
        ("listen", "host:x"),
        ("listen", "host:65536"),
        ("advertise", "nonsense"),
        ("metrics_listen", "nonsense"),
        ("store", "redis"),
        ("etcd_endpoints", "a:1,b"),
        ("etcd_endpoints", ""),
        ("etcd_timeout", "0"),
        ("etcd_timeout", "61"),
        ("prefix", "/rooted"),
        ("prefix", "sp ace"),
        ("session_ttl", "1.9"),
        ("session_ttl", "3601"),
        ("session_ttl", "soon"),
        ("queue_max", "0"),
        ("start_timeout", "0"),
        ("stop_grace", "-1"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("token_key_file", "no/such/file"),
        ("etcd_ca_file", "no/such/file"),
        ("tls_client_ca_file", "no/such/file"),
    ],
)
def test_a_wrong_value_is_explained_by_its_setting_and_where_that_is_set(
    name: str, value: str
) -> None:
    message = wrong(**{name: value})
    assert message.startswith(f"{name}: ")
    assert f"--{name.replace('_', '-')}" in message
    assert f"SEATKEEPER_{name.upper()}" in message
    assert "\n" not in message, "one wrong setting, one line"


@pytest.mark.parametrize(
    "metrics", ["127.0.0.1:7420", "0.0.0.0:7420", "localhost:7420", "[::]:7420"]
)
def test_two_ports_that_are_one_are_refused(metrics: str) -> None:
    message = wrong(listen="127.0.0.1:7420", metrics_listen=metrics)
    assert "metrics_listen has the port of listen" in message


@pytest.mark.parametrize("metrics", ["127.0.0.1:7421", "127.0.0.2:7420", ""])
def test_two_ports_that_are_two_are_not(metrics: str) -> None:
    given = {"node_id": "n", "listen": "127.0.0.1:7420", "metrics_listen": metrics}
    assert load_config(None, given).metrics_listen == metrics


@pytest.mark.parametrize("listen", ["0.0.0.0:7420", "[::]:7420"])
def test_who_listens_everywhere_must_say_where_he_is(listen: str) -> None:
    assert "advertise: " in wrong(listen=listen)
    assert "port 0" in wrong(listen=listen, advertise="seats-1:0")
    config = load_config(None, {"node_id": "n", "listen": listen, "advertise": "seats-1:7420"})
    assert config.advertise == "seats-1:7420"


def test_every_wrong_setting_is_reported_at_once() -> None:
    lines = wrong(listen="x", queue_max="0").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["listen", "queue_max"]


def test_an_unknown_setting_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("lisen = 'x:1'\n")
    assert wrong(file).startswith("lisen: there is no such setting")


def test_a_variable_of_another_program_part_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client has variables of the same beginning."""
    before = load_config(None, {"node_id": "n"})
    monkeypatch.setenv("SEATKEEPER_ADDRESS", "10.0.0.1:7420")
    assert load_config(None, {"node_id": "n"}) == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tls_cert_file", "tls_key_file"),
        ("etcd_cert_file", "etcd_key_file"),
        ("etcd_password_file", "etcd_username"),
    ],
)
def test_settings_that_go_together_are_refused_alone(
    first: str, second: str, file: Path
) -> None:
    message = wrong(**{first: str(file)})
    assert first in message
    assert second in message


def test_client_certificates_need_a_certificate_of_the_node(file: Path) -> None:
    assert "tls_client_ca_file needs tls_cert_file" in wrong(tls_client_ca_file=str(file))


def test_pairs_that_are_complete_are_accepted(file: Path) -> None:
    config = load_config(
        None,
        {
            "tls_cert_file": file,
            "tls_key_file": file,
            "tls_client_ca_file": file,
            "etcd_username": "root",
            "etcd_password_file": file,
        },
    )
    assert config.tls_client_ca_file == file


@pytest.mark.parametrize(
    "content", [b"listen = ", b"[listen", b"\xff\xfe\x00"], ids=["cut", "broken", "no text"]
)
def test_a_file_that_cannot_be_understood_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(content)
    assert wrong(file).startswith(f"--config {file}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert wrong(tmp_path / "none.toml").startswith(f"--config {tmp_path / 'none.toml'}: ")


def test_a_table_in_the_file_is_no_value(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[listen]\nport = 1\n")
    assert wrong(file).startswith("listen")


def test_every_setting_is_described() -> None:
    assert all(field.description for field in NodeConfig.model_fields.values())
