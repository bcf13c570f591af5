"""Publishing by Lighthouse, which keeps results on Filecoin and serves them by IPFS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.outbound.service import Service, ServiceFault, at, multipart
from bacalhau_p2p.publishers.keeping import PublishLimits
from bacalhau_p2p.publishers.remote import Result, check_cid, poll

UPLOAD = "https://upload.lighthouse.storage"
API = "https://api.lighthouse.storage"


class Lighthouse:
    """Uploads the result as a CAR, so that its CID is ours, and waits until Lighthouse lists it.

    The location has the `CID` and the `Service`. Deals with storage providers follow within days,
    and are Lighthouse's affair.
    """

    type = "lighthouse"

    def __init__(self, upload: Service, api: Service) -> None:
        self._upload = upload
        self._api = api

    async def hand_over(self, result: Result, limits: PublishLimits) -> Mapping[str, Any]:
        """As `Handover.hand_over`."""
        form, content_type = multipart("file", f"{result.cid}.car", CAR_MEDIA_TYPE, result.car)
        answer = await self._upload.call("POST", "/api/v0/dag/import", body=form, content_type=content_type)
        check_cid(_root(answer), result.cid, self._upload.host)
        await poll(lambda: self._is_listed(result), limits)
        return {"Service": self._api.host}

    async def _is_listed(self, result: Result) -> bool:
        try:
            answer = await self._api.call("GET", "/api/lighthouse/file_info", query={"cid": str(result.cid)})
        except ServiceFault as fault:
            if fault.status == 404:  # not yet
                return False
            raise
        check_cid(at(answer, "data", "cid") or at(answer, "cid"), result.cid, self._api.host)
        return True


def _root(answer: Any) -> Any:
    """The CID in the answer to an upload; a CAR's has it in another place than a file's."""
    return at(answer, "data", "Hash") or at(answer, "Hash") or at(answer, "Root", "Cid", "/")
