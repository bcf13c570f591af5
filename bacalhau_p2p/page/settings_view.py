"""The view of the settings of a node, without its secrets."""

from __future__ import annotations

import json
from typing import Any

from bacalhau_p2p.settings import Settings

SECRET = "(set; not shown)"  # noqa: S105 - what stands in its place
_SECRET_NAMES = ("token", "secret", "key", "password")


def settings_values(settings: Settings) -> dict[str, Any]:
    shown = settings.model_dump(mode="json")
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in type(settings).model_fields.items()
    }
    rows = []
    for name, value in shown.items():
        secret = any(word in name for word in _SECRET_NAMES)
        default = getattr(settings, name) == defaults[name]
        text = (SECRET if value and not default else "") if secret else _text(value)
        rows.append({"name": name, "value": text, "origin": "default" if default else "set"})
    return {"rows": rows}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
