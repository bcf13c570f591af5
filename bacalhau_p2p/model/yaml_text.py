"""Values as YAML for people to read."""

from __future__ import annotations

from typing import Any

import yaml

WIDTH = 200
"""Characters of a line before it is folded."""


def yaml_text(value: object) -> str:
    """YAML with keys in their order, and text of several lines as it is."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # four times as fast, where it was compiled


class _Dumper(_Base):  # type: ignore[misc]
    def represent_str(self, text: str) -> Any:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
