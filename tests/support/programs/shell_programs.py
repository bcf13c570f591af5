"""What the conformance suite for executors runs, as shell commands in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.testing.executors import LINE, Program, Programs


def shell(
    script: str, *arguments: str, environment: Mapping[str, str] | Sequence[str] = (), **params: object
) -> Program:
    return Program(
        engine=SpecConfig(
            type="docker",
            params={
                "Image": "busybox:latest",
                "Entrypoint": ["sh", "-c", script, "sh"],
                "Parameters": list(arguments),
                "EnvironmentVariables": environment,
                **params,
            },
        )
    )


class ShellPrograms(Programs):
    def exit_with(self, code: int) -> Program:
        return shell(f"exit {code}")

    def say(self, stdout: str, stderr: str) -> Program:
        return shell('printf %s "$1"; printf %s "$2" >&2', stdout, stderr)

    def flood(self, lines: int) -> Program:
        text = LINE.decode().strip()
        return shell(f"yes {text} | head -n {lines}; yes {text} | head -n {lines // 2} >&2")

    def copy(self, source: str, target: str) -> Program:
        return shell('cp "$1" "$2"', source, target)

    def write(self, path: str, text: str) -> Program:
        return shell('printf %s "$2" > "$1"', path, text)

    def print_variable(self, name: str) -> Program:
        return shell(f'printf %s "${name}"')

    def print_arguments(self, arguments: Sequence[str]) -> Program:
        return shell('for text; do printf "%s\\n" "$text"; done', *arguments)

    def hold(self, path: str) -> Program:
        return shell('exec 3>"$1"; sleep 3600', path)

    def spin(self, path: str) -> Program:
        return shell('exec 3>"$1"; while :; do :; done', path)
