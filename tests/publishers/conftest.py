from __future__ import annotations

import pytest


@pytest.fixture
async def result(content, tmp_path):
    """The CID of a results folder that the node's store holds."""
    folder = tmp_path / "results"
    (folder / "outputs").mkdir(parents=True)
    (folder / "stdout").write_text("hello\n")
    (folder / "exitCode").write_text("0")
    (folder / "outputs" / "data.bin").write_bytes(bytes(range(256)) * 3000)
    return str((await content.add(folder, pin_owner="execution")).cid)
