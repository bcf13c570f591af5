"""`config list`: settings and where they come from."""

from __future__ import annotations

import csv
import io

from bacalhau_p2p.settings import Settings, load_settings


def test_each_setting_is_shown_with_its_value_and_origin(run, tmp_path, monkeypatch):
    monkeypatch.setenv("BACALHAU_P2P_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BACALHAU_P2P_SWARM_PORT", "7")
    monkeypatch.setenv("BACALHAU_P2P_LIMIT_CPU", "2")
    monkeypatch.setenv("BACALHAU_P2P_API_TOKEN", "secret")
    file = tmp_path / "config.yaml"
    given = ["network: here", "limits: {memory: 1gb}", "labels: {zone: eu, rack: 7}", "pinning_token: hidden"]
    file.write_text("\n".join(given))
    printed = run("config", "list", "-o", "csv").stdout
    rows = {name: (value, origin) for name, value, origin in csv.reader(io.StringIO(printed))}
    assert rows["NAME"] == ("VALUE", "FROM")
    assert rows["swarm_port"] == ("7", "BACALHAU_P2P_SWARM_PORT")
    assert rows["network"] == ("here", str(file))
    assert rows["limits.memory"] == ("1gb", str(file))
    assert rows["limits.cpu"] == ("2", "BACALHAU_P2P_LIMIT_CPU")
    assert rows["labels"] == ("zone=eu,rack=7", str(file))
    assert rows["gateway"] == ("false", "default")
    assert rows["image_registries"] == ("docker.io,ghcr.io,quay.io", "default")
    assert "secret" not in printed
    assert "hidden" not in printed
    assert rows["api_token"][1] == "BACALHAU_P2P_API_TOKEN"


def test_a_file_may_be_named(tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text("swarm_port: 9\n")
    found = {name: (value, origin) for name, value, origin in load_settings(file=file, environ={}).listed()}
    assert found["swarm_port"] == (9, str(file))
    assert found["api_token"] == ("", "default")


def test_flags_and_programs_are_origins_too(tmp_path):
    flagged = {name: origin for name, _, origin in load_settings(environ={}, flags={"network": "x"}).listed()}
    assert (flagged["network"], flagged["swarm_port"]) == ("flag", "default")
    made = {name: origin for name, _, origin in Settings(data_dir=tmp_path, swarm_port=0).listed()}
    assert (made["data_dir"], made["swarm_port"], made["limits.cpu"]) == ("program", "program", "default")


def test_a_wrong_setting_is_an_error(run, tmp_path):
    (tmp_path / "x.yaml").write_text("swarm_prt: 9\n")
    result = run("config", "list", "--config", "x.yaml")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: swarm_prt: unknown setting (did you mean swarm_port?) (in x.yaml)\n",
    )
