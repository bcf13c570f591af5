"""Which tests run in one process, when there are several."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

_SHARED = re.compile(r"^@pytest\.fixture\(scope=\"module\"", re.MULTILINE)


class FilesThatShareScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of a file with fixtures of scope `module` go to one worker, which makes these once; others go
    wherever a worker is free. Large files begin."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if shares_fixtures(self.config.rootpath / path) else nodeid


@cache
def shares_fixtures(path: Path) -> bool:
    """Whether the tests of this file share a fixture."""
    return _SHARED.search(path.read_text()) is not None
