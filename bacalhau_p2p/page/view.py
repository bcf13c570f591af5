"""What a view of the page is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from bacalhau_p2p.node import Node

Values = dict[str, Any]
"""What a template shows, by name."""
Strings = Mapping[str, str]
"""Parts of a path, of a query, or of a form."""


class View(NamedTuple):
    """A page that changes while somebody looks."""

    path: str
    template: str
    values: Callable[[Node, Strings, Strings], Awaitable[Values]]
    """Takes the node, the named parts of the path and the query."""
    section: str
    """The entry of the menu that it belongs to."""
