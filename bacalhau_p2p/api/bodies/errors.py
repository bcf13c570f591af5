"""The body of every error."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from bacalhau_p2p.api.bodies.base import Body
from bacalhau_p2p.errors import UnknownJob
from bacalhau_p2p.model.api_errors import error_to_json
from bacalhau_p2p.model.base import wire_name

_EXAMPLE = error_to_json(UnknownJob("no job has the id 17b2d7dd"))


class FaultBody(Body):
    """One thing that is wrong with a job."""

    path: str = Field(description="Where, such as `Tasks[0].Engine.Params.Image`.")
    problem: str


class ErrorBody(Body):
    """Why a request failed."""

    model_config = ConfigDict(alias_generator=wire_name, json_schema_extra={"example": _EXAMPLE})

    status: int = Field(description="The HTTP status of the response.")
    message: str = Field(description="The cause first, then the object and what to do.")
    request_id: str = ""
    code: str = Field(description="Bacalhau's code of the error.")
    component: str = Field(description="What failed, in Bacalhau's words.")
    hint: str = ""
    details: dict[str, str] = Field(default={}, description="The faults of a job, by their path.")
    error: str = Field(description="The message again.")
    kind: str = Field(description="The kind of the error, such as `UnknownJob`.")
    faults: list[FaultBody] = Field(default=[], description="What is wrong with a job.")
