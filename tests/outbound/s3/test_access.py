from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.s3.access import S3Access


def test_only_endpoints_of_the_settings_are_allowed():
    access = S3Access(endpoints=["http://Minio.test:9000/"])
    assert access.endpoint_faults("") == []
    assert access.endpoint_faults("http://minio.test:9000") == []
    [fault] = access.endpoint_faults("http://169.254.169.254")
    assert (fault.path, fault.this_node_only) == ("Params.Endpoint", True)


def test_credentials_are_used_for_the_patterns_of_the_settings():
    access = S3Access(buckets=["ours-*", "one"])
    assert access.can_write
    assert [access.uses_credentials(name) for name in ("ours-1", "one", "two")] == [True, True, False]
    assert not S3Access().can_write


@pytest.mark.parametrize("endpoint", ["minio:9000", "http://user:secret@host", "http://host/path"])
def test_an_endpoint_with_more_than_a_host_is_a_settings_error(endpoint):
    with pytest.raises(SettingsError, match="s3_endpoints"):
        S3Access(endpoints=[endpoint])
