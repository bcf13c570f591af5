from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.settings import load_settings

SECRET = "sesame-0123456789"


def test_tokens_come_from_the_environment_and_are_not_shown():
    settings = load_settings(environ={"BACALHAU_P2P_PINNING_TOKEN": f" {SECRET}\n"})
    assert settings.pinning_token.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_token_that_cannot_be_sent_is_refused_without_showing_it():
    with pytest.raises(SettingsError, match=r"lighthouse_token: .*must be one line") as caught:
        load_settings(environ={"BACALHAU_P2P_LIGHTHOUSE_TOKEN": f"{SECRET}\r\nX: y"})
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("name", ["input_limit", "input_cache"])
def test_amounts_are_checked(name):
    with pytest.raises(SettingsError, match=f"{name}: .*'much' is not a size in bytes"):
        load_settings(environ={}, flags={name: "much"})


def test_the_job_selection_policy_is_checked():
    settings = load_settings(environ={"BACALHAU_P2P_DATA_LOCALITY": "Local"}, flags={"probe_timeout": 1})
    assert (settings.data_locality, settings.probe_timeout) == ("local", 1)
    for name, value in {
        "data_locality": "nearby",
        "probe_http": "ftp://host/",
        "probe_timeout": 31,
        "reject_stateless": "perhaps",
    }.items():
        with pytest.raises(SettingsError, match=f"^{name}: "):
            load_settings(environ={}, flags={name: value})
