"""Turns announcements and the specs of large jobs into events: checked, and with an assessment of the job."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from bacalhau_p2p.bprotocol.messages import JobAnnounced, JobOutlined, SpecDelivered
from bacalhau_p2p.bprotocol.outlines import announcement_with, with_spec
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.assessment import Assessor
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import JobSpec

MAX_FETCHED_SPECS = 256
MAX_FETCHED_BYTES = 8 * 1024 * 1024
"""Specs of large jobs that were fetched lately, and the bytes of their encodings. A job that is announced
again, or for which there is room later, is not fetched again."""


class AnnouncementReader:
    """For the messages that one node receives."""

    def __init__(self, assessor: Assessor, awaited: Callable[[PeerID, JobID], JobOutlined | None]) -> None:
        """`awaited` gives the outline of a job whose spec this node has asked a requester for."""
        self._assessor = assessor
        self._awaited = awaited
        self._fetched: OrderedDict[tuple[PeerID, str], tuple[JobSpec, int]] = OrderedDict()
        self._bytes = 0

    def event_of(self, author: PeerID, message: JobAnnounced | JobOutlined | SpecDelivered) -> ev.Event:
        """What such a message of this author is to the machine."""
        match message:
            case JobAnnounced():
                return ev.AnnouncementReceived(author, message, self._assessor.assess(author, message))
            case JobOutlined():
                return self._outlined(author, message)
            case SpecDelivered():
                return self._delivered(author, message)

    def _outlined(self, author: PeerID, message: JobOutlined) -> ev.Event:
        known = self._fetched.get((author, message.outline.spec_cid))
        if known is not None and message.outline.difference_to(known[0]) is None:
            announcement = with_spec(message, known[0])
            return ev.AnnouncementReceived(author, announcement, self._assessor.assess(author, announcement))
        return ev.OutlineReceived(author, message, self._assessor.assess_outline(author, message))

    def _delivered(self, author: PeerID, message: SpecDelivered) -> ev.Event:
        outlined = self._awaited(author, message.job_id)
        if outlined is None or not message.spec:
            return ev.MessageReceived(author, message)
        try:
            announcement = announcement_with(outlined, message.spec)
        except RemoteProtocolError as error:
            return ev.SpecRefused(author, message.job_id, str(error))
        self._remember((author, outlined.outline.spec_cid), announcement.spec, len(message.spec))
        return ev.SpecReceived(author, announcement, self._assessor.assess(author, announcement))

    def _remember(self, key: tuple[PeerID, str], spec: JobSpec, size: int) -> None:
        _, earlier = self._fetched.pop(key, (spec, 0))  # a requester may deliver it several times at once
        self._fetched[key] = (spec, size)
        self._bytes += size - earlier
        while len(self._fetched) > MAX_FETCHED_SPECS or self._bytes > MAX_FETCHED_BYTES:
            _, (_, dropped) = self._fetched.popitem(last=False)
            self._bytes -= dropped
