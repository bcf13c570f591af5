"""Publishing by Estuary, for those who run one: the public service was switched off in 2023."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.outbound.service import Service, ServiceFault, at
from bacalhau_p2p.publishers.keeping import PublishLimits
from bacalhau_p2p.publishers.remote import Result, check_cid, poll


class Estuary:
    """Uploads the result as a CAR, and waits until Estuary has pinned it.

    The location has the `CID`, the `Service` and the `EstuaryID`.
    """

    type = "estuary"

    def __init__(self, service: Service) -> None:
        self._service = service

    async def hand_over(self, result: Result, limits: PublishLimits) -> Mapping[str, Any]:
        """As `Handover.hand_over`."""
        answer = await self._service.call(
            "POST",
            "/content/add-car",
            query={"filename": f"{result.execution_id}.car", "ignore-dupes": "true"},
            body=result.car,
            content_type=CAR_MEDIA_TYPE,
        )
        check_cid(at(answer, "cid"), result.cid, self._service.host)
        estuary_id = at(answer, "estuaryId")
        if not isinstance(estuary_id, int):
            raise ServiceFault(f"{self._service.host} gave the result no id")
        await poll(lambda: self._is_pinned(estuary_id, result), limits)
        return {"Service": self._service.host, "EstuaryID": estuary_id}

    async def _is_pinned(self, estuary_id: int, result: Result) -> bool:
        content = at(await self._service.call("GET", f"/content/status/{estuary_id}"), "content")
        if at(content, "failed") is True or at(content, "pinningStatus") == "failed":
            raise ServiceFault(f"{self._service.host} could not pin it")
        check_cid(at(content, "cid"), result.cid, self._service.host)
        return at(content, "active") is True or at(content, "pinningStatus") == "pinned"
