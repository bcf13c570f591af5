"""The environment variables that a node sets for each execution, with Bacalhau's names."""

from __future__ import annotations

from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import PeerID


def node_variables(execution: ComputeExecution, node_id: PeerID) -> dict[str, str]:
    """What the program may know of the job, the execution and the node.

    Where results are compared, all nodes set the same: neither the execution's id nor the node's.
    """
    spec = execution.spec
    variables = {
        "BACALHAU_JOB_ID": execution.job_id,
        "BACALHAU_JOB_NAME": spec.name or execution.job_id,
        "BACALHAU_JOB_NAMESPACE": spec.namespace,
        "BACALHAU_JOB_TYPE": spec.type,
        "BACALHAU_PARTITION_INDEX": str(execution.partition),
        "BACALHAU_PARTITION_COUNT": str(spec.partitions),
    }
    if not spec.deterministic:
        variables |= {"BACALHAU_EXECUTION_ID": execution.id, "BACALHAU_NODE_ID": node_id}
    return {name: text.replace("\0", "") for name, text in variables.items()}
