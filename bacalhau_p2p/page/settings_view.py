"""The view of the settings of a node, without its secrets."""

from __future__ import annotations

import json
from typing import Any

from bacalhau_p2p.settings import Settings


def settings_values(settings: Settings) -> dict[str, Any]:
    rows = [
        {"name": name, "value": _text(value), "origin": origin} for name, value, origin in settings.listed()
    ]
    return {"rows": rows}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
