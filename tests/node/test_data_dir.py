"""Nobody but its owner may look into the data directory."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.node.data_dir import make_private


@pytest.mark.parametrize("mode", [None, 0o755, 0o750, 0o700])
def test_a_data_directory_is_private_whether_it_existed_or_not(tmp_path, mode):
    folder = tmp_path / "a" / "b"
    if mode is not None:
        folder.mkdir(parents=True)
        folder.chmod(mode)
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_made_is_an_error_with_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file/dir: Not a directory"):
        make_private(tmp_path / "file" / "dir")
    with pytest.raises(SettingsError, match=r"file: it is not a folder; choose another with --data-dir"):
        make_private(tmp_path / "file")
