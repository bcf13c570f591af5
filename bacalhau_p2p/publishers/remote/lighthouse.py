"""Publishing by Lighthouse, which stores results on Filecoin and serves them by IPFS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.outbound.bodies import multipart
from bacalhau_p2p.outbound.service import Service, ServiceError, json_at
from bacalhau_p2p.publishers.remote.service import RemoteLimits, Result, check_cid, poll


class Lighthouse:
    """Uploads the result as a CAR, so that its CID stays the same, and waits until Lighthouse lists it.

    The location has the `CID` and the `Service`. Lighthouse makes the Filecoin deals itself, days later.
    """

    type = "lighthouse"

    def __init__(self, upload: Service, api: Service) -> None:
        self._upload = upload
        self._api = api

    async def publish(self, result: Result, limits: RemoteLimits) -> Mapping[str, Any]:
        """As `RemoteService.publish`."""
        form, content_type = multipart("file", f"{result.cid}.car", CAR_MEDIA_TYPE, result.car)
        answer = await self._upload.call("POST", "/api/v0/dag/import", body=form, content_type=content_type)
        check_cid(_root(answer), result.cid, self._upload.host)
        await poll(lambda: self._is_listed(result), limits)
        return {"Service": self._api.host}

    async def _is_listed(self, result: Result) -> bool:
        try:
            answer = await self._api.call("GET", "/api/lighthouse/file_info", query={"cid": str(result.cid)})
        except ServiceError as error:
            if error.status == 404:  # not yet
                return False
            raise
        check_cid(json_at(answer, "data", "cid") or json_at(answer, "cid"), result.cid, self._api.host)
        return True


def _root(answer: Any) -> Any:
    """The CID in the answer to an upload; for a CAR it has another place than for a file."""
    return json_at(answer, "data", "Hash") or json_at(answer, "Hash") or json_at(answer, "Root", "Cid", "/")
