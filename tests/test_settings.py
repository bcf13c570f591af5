"""Settings from files, variables and flags. Covers `settings` and `setting_values`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.settings import Settings, load_settings

SECRET = "sesame-0123456789"


PEERS = tuple(
    f"/ip4/192.0.2.{number}/tcp/1/p2p/{Identity.generate(bytes([number]) * 32).peer_id}" for number in (1, 2)
)


def error(**flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={}, flags=flags)
    return str(caught.value)


def test_flags_override_the_environment_and_that_overrides_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("swarm_port: 1\napi_port: 1\nnetwork: one\n")
    environ = {"BACALHAU_P2P_SWARM_PORT": "2", "BACALHAU_P2P_API_PORT": "2"}
    settings = load_settings(file=file, environ=environ, flags={"swarm_port": 3, "network": None})
    assert (settings.swarm_port, settings.api_port, settings.network) == (3, 2, "one")


def test_the_file_in_the_data_directory_is_read_if_there_is_one(tmp_path):
    environ = {"BACALHAU_P2P_DATA_DIR": str(tmp_path)}
    assert load_settings(environ=environ).neighbours == 6
    (tmp_path / "config.yaml").write_text("neighbours: 7\n")
    assert load_settings(environ=environ).neighbours == 7
    (tmp_path / "config.yaml").write_text("")
    assert load_settings(environ=environ).neighbours == 6


def test_lists_labels_and_limits_come_from_the_environment():
    settings = load_settings(
        environ={
            "BACALHAU_P2P_PEERS": ",".join(PEERS),
            "BACALHAU_P2P_LABELS": "zone=lab,disk=fast",
            "BACALHAU_P2P_LIMIT_MEMORY": "2gb",
        }
    )
    assert settings.peers == PEERS
    assert settings.labels == {"zone": "lab", "disk": "fast"}
    assert (settings.limits.memory, settings.limits.cpu) == ("2gb", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "{file} is not YAML: did not find expected node content at line 2, column 1"),
        (b"\xff", "{file} is not YAML: "),
        (b"- a", "{file} must contain a map of settings"),
        (b"swarm_prot: 1", "swarm_prot: unknown setting (did you mean swarm_port?)"),
        (b"swarmPort: 1", "swarmPort: unknown setting (did you mean swarm_port?)"),
        (b"limits: {cpus: 2}", "limits.cpus: unknown setting (did you mean cpu?)"),
        (b"zzz: 1", "zzz: unknown setting"),
        (b"swarm_port: x", "swarm_port: must be a whole number, not 'x' (in {file})"),
        (b"limits: {cpu: x}", "limits.cpu: 'x' is not a number of cores, such as 0.5 or 500m (in {file})"),
        (b"peers: [a]", "peers[0]: 'a' is not an address of a peer; it must be /ip4/ADDRESS"),
        (b"allow_local_paths: [a]", "allow_local_paths[0]: allowed local path 'a' must be absolute"),
        (b"image_registries: ['http://a']", "image_registries[0]: 'http://a' is not HOST or HOST:PORT"),
        (b"drain: 1\ndrain: 2", "{file} is not YAML: duplicate key 'drain' at line 2, column 1"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_it_or_the_setting(tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(file=file, environ={})
    assert str(caught.value).startswith(message.format(file=file))


def test_an_invalid_variable_is_named():
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={"BACALHAU_P2P_LIMIT_CPU": "x", "BACALHAU_P2P_SWARM_PORT": "70000"})
    assert str(caught.value) == (
        "swarm_port: must be at most 65535, not '70000' (in BACALHAU_P2P_SWARM_PORT); "
        "limits.cpu: 'x' is not a number of cores, such as 0.5 or 500m (in BACALHAU_P2P_LIMIT_CPU)"
    )


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match=r"^cannot read .*/none.yaml: No such file or directory$"):
        load_settings(file=tmp_path / "none.yaml", environ={})


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("swarm_port", 70000, "must be at most 65535, not 70000"),
        ("swarm_port", "first", "must be a whole number, not 'first'"),
        ("requester", "perhaps", "must be true or false, not 'perhaps'"),
        ("drain", -1, "must be at least 0, not -1"),
        ("probe_timeout", 31, "must be at most 30, not 31"),
        ("probe_timeout", 0, "must be greater than 0"),
        ("data_locality", "nearby", "must be one of 'anywhere' or 'local', not 'nearby'"),
        ("dht", "on", "must be one of 'off', 'client' or 'server', not 'on'"),
        ("job_user", "root", "must be image, nobody, UID or UID:GID, not 'root'"),
        ("dht_prefix", "lab", "must be 1 to 4 names, each behind a slash, not 'lab'"),
        ("network", "a b", "must be 1 to 64 letters, digits, dots, hyphens or _, not 'a b'"),
        ("labels", ["zone"], "'zone' is not KEY=VALUE"),
        ("probe_http", "ftp://host/", "must be an http or https URL, not 'ftp://host/'"),
        ("gateway_url", "gate.example", "must be an http or https URL, not 'gate.example'"),
        ("input_limit", "much", "'much' is not a size in bytes, such as 256mb or 1Gi"),
        ("input_cache", "", "must not be empty"),
        ("min_free_disk", "", "must not be empty"),
        ("content_quota", "much", "'much' is not a size in bytes, such as 256mb or 1Gi"),
        ("peers", 1, "must be a list, not 1"),
    ],
)
def test_an_invalid_value_is_named_with_its_setting(setting, value, problem):
    assert error(**{setting: value}) == f"{setting}: {problem}"


def test_numbers_booleans_and_plain_text_are_taken_where_they_mean_the_setting(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "limits: {cpu: 2, memory: 2000000000, gpu: 0}\n"
        "labels: {zone: 1, fast: true, version: 1.10}\n"
        "content_quota: 50000000000\nmin_free_disk: 0\ninput_cache: 1000\n"
        "network: 7\napi_token: 0123\ndht: off\nrequester: no\npower_safe: off\n"
        "swarm_port: '1235'\nengines: wasm, noop\npeers: " + PEERS[0] + "\n"
        "keep_jobs: 400d\ndrain: 1m30s\nprobe_timeout: 2\n"
    )
    settings = load_settings(file=file, environ={"BACALHAU_P2P_KEEP_IMAGES": "2h"})
    assert (settings.limits.cpu, settings.limits.memory, settings.limits.gpu) == ("2", "2000000000", "0")
    assert settings.labels == {"zone": "1", "fast": "true", "version": "1.10"}
    assert (settings.content_quota, settings.min_free_disk, settings.input_cache) == (
        "50000000000",
        "0",
        "1000",
    )
    assert (settings.network, settings.api_token, settings.dht) == ("7", "0123", "off")
    assert (settings.requester, settings.power_safe, settings.swarm_port) == (False, False, 1235)
    assert (settings.engines, settings.peers) == (("wasm", "noop"), PEERS[:1])
    assert (settings.keep_jobs, settings.drain, settings.probe_timeout) == (400 * 86400, 90, 2)
    assert settings.keep_images == 7200


def test_an_unknown_variable_is_an_error_with_a_suggestion():
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={"BACALHAU_P2P_SWARM_PROT": "1"})
    assert str(caught.value) == (
        "BACALHAU_P2P_SWARM_PROT: unknown setting (did you mean BACALHAU_P2P_SWARM_PORT?)"
    )
    with pytest.raises(SettingsError, match=r"^BACALHAU_P2P_ZZZ: unknown setting \(`config list` shows all"):
        load_settings(environ={"BACALHAU_P2P_ZZZ": "1"})


def test_variables_of_tests_and_of_kubernetes_are_left_alone():
    names = ("REQUIRE_DOCKER", "CHAOS", "DEVSTACK", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_API")
    others = [f"BACALHAU_P2P_{name}" for name in (*names, "PORT", "PORT_1234_TCP", "PORT_1234_TCP_ADDR")]
    load_settings(environ=dict.fromkeys(others, "1"))


def test_limits_of_the_environment_and_of_the_file_are_both_kept(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("limits: {memory: 1gb, cpu: 1}\n")
    limits = load_settings(file=file, environ={"BACALHAU_P2P_LIMIT_CPU": "2"}).limits
    assert (limits.cpu, limits.memory) == ("2", "1gb")


def test_an_invalid_limit_is_named_without_the_words_of_pydantic():
    assert (
        error(limits={"cpu": "lots", "ram": "1gb"})
        == "limits.cpu: 'lots' is not a number of cores, such as 0.5 or 500m; limits.ram: unknown setting"
    )


def test_letter_case_does_not_matter_for_choices():
    settings = load_settings(environ={"BACALHAU_P2P_DATA_LOCALITY": "Local"}, flags={"dht": "OFF"})
    assert (settings.data_locality, settings.dht) == ("local", "off")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_api_on_loopback_needs_no_token(host):
    assert load_settings(environ={}, flags={"api_host": host}).api_on_loopback


def test_an_api_that_others_can_reach_needs_a_token():
    assert error(api_host="0.0.0.0") == (
        "api_host: 0.0.0.0 makes the API reachable from other computers; "
        "set BACALHAU_P2P_API_TOKEN to a secret"
    )
    assert not load_settings(
        environ={"BACALHAU_P2P_API_TOKEN": SECRET}, flags={"api_host": "0.0.0.0"}
    ).api_on_loopback


def test_tokens_come_from_the_environment_and_are_never_shown():
    settings = load_settings(environ={"BACALHAU_P2P_PINNING_TOKEN": f" {SECRET}\n"})
    assert settings.pinning_token.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_token_that_cannot_be_sent_is_rejected_without_showing_it():
    with pytest.raises(SettingsError, match=r"^lighthouse_token: must be one line") as caught:
        load_settings(environ={"BACALHAU_P2P_LIGHTHOUSE_TOKEN": f"{SECRET}\r\nX: y"})
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("name", ["allowed_peers", "denied_peers", "allowed_requesters", "denied_requesters"])
def test_lists_of_peers_have_nothing_but_peer_ids(name):
    peer = Identity.generate(bytes(32)).peer_id
    assert getattr(load_settings(environ={f"BACALHAU_P2P_{name.upper()}": f"{peer},{peer}"}), name) == (
        peer,
        peer,
    )
    assert f"{name}[0]: must be a peer id" in error(
        **{name: ["QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"]}
    )


def test_a_peer_to_connect_to_must_be_allowed_to_connect():
    alice, bob = (address.rpartition("/")[2] for address in PEERS)
    assert error(peers=PEERS, denied_peers=[bob]) == (
        f"peers: {bob} is among denied_peers, so it cannot connect; remove it from one"
    )
    assert error(peers=PEERS, allowed_peers=[alice]) == (
        f"peers: {bob} is not among allowed_peers, so it cannot connect; add it there"
    )
    allowed = load_settings(environ={}, flags={"peers": PEERS, "allowed_peers": [alice, bob]})
    assert allowed.peers == PEERS


def test_settings_from_python_need_no_file():
    assert Settings(data_dir=Path("here")).data_dir == Path("here")


@pytest.mark.parametrize(
    "labels", [{"a": "x" * 4096}, {str(number): "" for number in range(257)}, {"x" * 257: ""}]
)
def test_labels_that_other_nodes_would_refuse_are_refused_at_start(labels):
    """A node info has at most 8 KiB."""
    assert "labels" in error(labels=labels)


def test_limits_of_one_job_come_from_file_environment_and_flags_one_by_one(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("job_limits: {memory: 1gb, cpu: 1}\nlimits: {cpu: 4}\n")
    environ = {"BACALHAU_P2P_JOB_LIMIT_CPU": "2", "BACALHAU_P2P_JOB_LIMIT_DISK": "5gb"}
    flags = {"job_limits": {"disk": "6gb"}, "limits": {"gpu": "1"}}
    settings = load_settings(file=file, environ=environ, flags=flags)
    one, all_jobs = settings.job_limits, settings.limits
    assert (one.cpu, one.memory, one.disk, one.gpu) == ("2", "1gb", "6gb", "")
    assert (all_jobs.cpu, all_jobs.gpu) == ("4", "1")
    origins = {name: origin for name, _, origin in settings.listed()}
    assert [origins[f"job_limits.{name}"] for name in ("cpu", "memory", "disk", "gpu")] == [
        "BACALHAU_P2P_JOB_LIMIT_CPU",
        str(file),
        "flag",
        "default",
    ]


def test_a_user_without_a_home_has_to_name_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("bacalhau_p2p.settings.user_data_path", lambda name: Path("~/.local/share") / name)
    with pytest.raises(
        SettingsError, match=r"^this user has no home: set HOME, or name a folder with --data"
    ):
        load_settings(environ={})
    assert load_settings(environ={}, flags={"data_dir": tmp_path}).data_dir == tmp_path
