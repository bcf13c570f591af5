"""A file or folder on its way to a node's HTTP API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bacalhau_p2p.client.calls import CONTENT, JSON, Call, text
from bacalhau_p2p.errors import ApiError, InvalidCID
from bacalhau_p2p.ipfs.files.importer import Added, Symlinks
from bacalhau_p2p.ipfs.files.pack import Packed
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.profiles import DEFAULT_PROFILE, Profile


def upload(
    path: Path,
    *,
    profile: Profile = DEFAULT_PROFILE,
    hidden: bool = False,
    programs: bool = False,
    symlinks: Symlinks = "keep",
    report: Callable[[Added], None] = lambda added: None,
) -> Call[str]:
    """Add a file or folder to the node, which pins it; the result is its CID.

    `hidden`, `programs` and `symlinks` as for `importer.build`; `report` is called with what was added.

    Making the body reads the path and raises ContentError. Reading the response checks that the node
    has stored what was sent, and raises ApiError.
    """
    packed = Packed(path, profile=profile, hidden=hidden, programs=programs, symlinks=symlinks)

    def read(response: JSON) -> str:
        try:
            cid = CID.parse(text(response, "CID"))
        except InvalidCID as error:
            raise ValueError(str(error)) from error
        if cid != packed.root:
            raise ApiError(f"the node stored {path} as {cid}; expected {packed.root}")
        if packed.added is not None:
            report(packed.added)
        return str(cid)

    return Call(
        method="PUT",
        path=CONTENT,
        query=(("root", "last"),),  # the root is known when everything has been read
        body=packed,
        content_type=CAR_MEDIA_TYPE,
        read=read,
    )
