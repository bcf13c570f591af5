"""The command line `bacalhau-p2p`: click commands that talk HTTP to a node, each imported on use."""


def main() -> None:
    """Run the command in the arguments of this process."""
    import sys

    from bacalhau_p2p.cli.error_report import print_traceback
    from bacalhau_p2p.cli.root import cli

    sys.excepthook = print_traceback
    cli(prog_name="bacalhau-p2p")
