"""Publishing by an Estuary of one's own; the public service was switched off in 2023."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.outbound.service import Service, ServiceError, json_at
from bacalhau_p2p.publishers.remote.service import RemoteLimits, Result, check_cid, poll


class Estuary:
    """Uploads the result as a CAR, and waits until Estuary has pinned it.

    The location has the `CID`, the `Service` and the `EstuaryID`.
    """

    type = "estuary"

    def __init__(self, service: Service) -> None:
        self._service = service

    async def publish(self, result: Result, limits: RemoteLimits) -> Mapping[str, Any]:
        """As `RemoteService.publish`."""
        answer = await self._service.call(
            "POST",
            "/content/add-car",
            query={"filename": f"{result.execution_id}.car", "ignore-dupes": "true"},
            body=result.car,
            content_type=CAR_MEDIA_TYPE,
        )
        check_cid(json_at(answer, "cid"), result.cid, self._service.host)
        estuary_id = json_at(answer, "estuaryId")
        if not isinstance(estuary_id, int):
            raise ServiceError(f"{self._service.host}: no id in the answer to the upload")
        await poll(lambda: self._is_pinned(estuary_id, result), limits)
        return {"Service": self._service.host, "EstuaryID": estuary_id}

    async def _is_pinned(self, estuary_id: int, result: Result) -> bool:
        answer = await self._service.call("GET", f"/content/status/{estuary_id}")
        content = json_at(answer, "content")
        if json_at(content, "failed") is True or json_at(content, "pinningStatus") == "failed":
            raise ServiceError(f"{self._service.host}: pinning failed")
        check_cid(json_at(content, "cid"), result.cid, self._service.host)
        return json_at(content, "active") is True or json_at(content, "pinningStatus") == "pinned"
