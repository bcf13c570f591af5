"""The parameters of a part, as its adapter reads them."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import faults_of

M = TypeVar("M", bound=Model)


def read_params(model: type[M], config: SpecConfig) -> M:
    """The parameters as a value. Raises InvalidJob, its faults named from `Params` on."""
    try:
        return model.from_wire(dict(config.params))
    except ValidationError as error:
        raise InvalidJob(faults_of(error, "Params")) from None
