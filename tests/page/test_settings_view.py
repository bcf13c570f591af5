from __future__ import annotations

from bacalhau_p2p.page.settings_view import settings_values
from bacalhau_p2p.settings import STARS, Settings


def test_settings_are_shown_with_where_they_come_from_and_without_secrets(tmp_path):
    settings = Settings(
        data_dir=tmp_path, api_token="hunter2", pinning_token="hunter3", labels={"zone": "lab"}
    )
    shown = settings_values(settings)
    rows = {row["name"]: (row["value"], row["origin"]) for row in shown["rows"]}
    assert set(Settings.model_fields) - {"limits", "job_limits"} <= set(rows)
    assert rows["labels"] == ('{"zone": "lab"}', "program")
    assert rows["limits.cpu"] == ("", "default")
    assert rows["swarm_port"] == ("1235", "default")
    assert rows["api_token"] == rows["pinning_token"] == (STARS, "program")
    assert rows["kubo_token"] == ("", "default")
    assert "hunter" not in str(shown)
