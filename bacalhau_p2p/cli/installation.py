"""What a command says when a part of the program is not installed.

Two distributions have this command line: `bacalhau_p2p`, whole, and `bacalhau_p2p_client` without the node.
"""

from __future__ import annotations

from importlib.util import find_spec

import click

WHOLE = "bacalhau_p2p"
LIGHT = "bacalhau_p2p_client"


def not_installed(command: str, error: ModuleNotFoundError) -> click.ClickException:
    """The error of a command whose module needs another one that is missing."""
    name = error.name or str(error)
    if not name.startswith(f"{WHOLE}.") and find_spec(f"{WHOLE}.node") is not None:
        return click.ClickException(f"{command} needs {name}, which is not installed: pip install {WHOLE}")
    if LIGHT in _installed() and WHOLE in _installed():
        return click.ClickException(
            f"{LIGHT} hides parts of {WHOLE}: uninstall both, then pip install {WHOLE}"
        )
    return click.ClickException(
        f"{command} needs a node, and only the client is installed: pip install {WHOLE} elsewhere"
    )


def require_node() -> None:
    """Raises ModuleNotFoundError where only the client is installed. Imports nothing of a node."""
    name = f"{WHOLE}.node"
    if find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def check() -> None:
    """Raises ClickException when both distributions are installed over each other in different versions."""
    versions = _installed()
    if len(set(versions.values())) > 1:
        named = " and ".join(f"{name} {version}" for name, version in versions.items())
        raise click.ClickException(f"{named} are installed over each other: uninstall both, then install one")


def _installed() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in (WHOLE, LIGHT):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
