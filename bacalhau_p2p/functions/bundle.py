"""What all jobs of a function have in common: a folder that is added to the node once, by its CID."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.functions.capture import Captured
from bacalhau_p2p.functions.packages import Packages

_GUEST = Path(__file__).parent / "guest"
PROGRAMS = ("run.py", "values.py")


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of a function by their path: the programs that call it, `function.json`, and its packages."""

    files: dict[str, bytes]
    digest: str
    """Bundles with the same digest are the same."""

    @classmethod
    def of(cls, captured: Captured, packages: Packages) -> Bundle:
        """Blocks as reading small files does."""
        files = {name: (_GUEST / name).read_bytes() for name in PROGRAMS}
        files["function.json"] = captured.document()
        digest = hashlib.sha256(packages.digest.encode())
        for content in files.values():
            digest.update(hashlib.sha256(content).digest())
        files |= {f"packages/{path}": content for path, content in packages.files.items()}
        return cls(files, digest.hexdigest())

    def write(self, folder: Path) -> None:
        """Write all files below a folder. Blocks. Raises OSError."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
