from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.service import Service


@pytest.mark.parametrize("endpoint", ["", "pin.example", "ftp://pin.example", "https://"])
def test_an_endpoint_that_is_not_a_url_is_a_settings_error(endpoint):
    with pytest.raises(SettingsError, match="is not an http or https URL"):
        Service(endpoint)
