"""The base of all bodies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from bacalhau_p2p.model.base import wire_name


class Body(BaseModel):
    """An object. Later versions may add keys."""

    model_config = ConfigDict(alias_generator=wire_name, validate_by_name=True, validate_by_alias=True)


class Page(Body):
    """Part of a list. `NextToken` is empty on the last page."""

    next_token: str = ""
