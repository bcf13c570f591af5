"""Results folders of which only the root block exists."""

from __future__ import annotations

from typing import NamedTuple

from bacalhau_p2p.bprotocol.proposals import encode_proposal
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Proposal


class ResultsFolder(NamedTuple):
    """The CID of a results folder, the CIDs of its entries by name, and its root block."""

    cid: str
    entries: dict[str, str]
    root: bytes


def results_folder(stdout: str, **others: str) -> ResultsFolder:
    """The folder of a job that printed this; `others` are the contents of further files by name."""
    files = {name: CID.of(RAW, content.encode()) for name, content in {"stdout": stdout, **others}.items()}
    links = [PBLink(cid, name.encode(), 1) for name, cid in sorted(files.items())]
    root = encode_block(links, encode_directory())
    return ResultsFolder(str(CID.of(DAG_PB, root)), {name: str(cid) for name, cid in files.items()}, root)


def result_cid(stdout: str) -> str:
    """The CID of the results folder of a job that printed this."""
    return results_folder(stdout).cid


def proposal_of(folder: ResultsFolder, job_id: JobID, execution_id: ExecutionID, node_id: PeerID) -> Proposal:
    """An execution that proposes this folder."""
    return Proposal(
        job_id=job_id,
        execution_id=execution_id,
        node_id=node_id,
        result_cid=folder.cid,
        entries=folder.entries,
    )


def plaintext_of(folder: ResultsFolder, job_id: JobID, execution_id: ExecutionID, node_id: PeerID) -> bytes:
    """Its proposal, ready to be sealed."""
    return encode_proposal(proposal_of(folder, job_id, execution_id, node_id), folder.root)
