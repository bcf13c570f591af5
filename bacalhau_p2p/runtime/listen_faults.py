"""Why this process cannot listen on an address, for the operator to read."""

from __future__ import annotations

import errno


def why_not_listening(error: OSError, *, host_flag: str, port_flag: str) -> str:
    """The cause, and with which flag of `serve` to change it."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"already in use; choose another port with {port_flag}"
        case errno.EADDRNOTAVAIL:
            return f"this machine does not have this address; choose another with {host_flag}"
        case errno.EACCES:
            return f"permission denied; choose a port above 1023 with {port_flag}"
    return error.strerror or str(error)
