"""Starts the warm process: `python -I -S __main__.py PACKAGE_FOLDER SITE_PACKAGES CONTROL_FD`."""

from __future__ import annotations

import sys


def main() -> None:
    sys.path += sys.argv[1:3]
    from bacalhau_p2p.executors.wasm.child.warm_process import run

    run(int(sys.argv[3]))


if __name__ == "__main__":
    main()
