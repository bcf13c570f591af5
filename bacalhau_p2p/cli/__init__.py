"""The command line `bacalhau-p2p`: click commands, each loaded when it is used, that talk HTTP to a node."""


def main() -> None:
    """Run the command that the process was called with."""
    from bacalhau_p2p.cli.root import cli

    cli(prog_name="bacalhau-p2p")
