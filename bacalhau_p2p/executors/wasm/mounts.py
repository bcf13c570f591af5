"""Which folders a guest gets for its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.layout import Layout, Mount, arrange
from bacalhau_p2p.executors.output_limits import Outputs

WORKING_FOLDER = "."
"""The name under which a guest finds its working folder: paths that are not absolute lead there."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """What the guest finds where."""

    layout: Layout
    preopens: Sequence[tuple[str, str, bool]]
    """(folder on this machine, path inside the job, whether it may be changed)."""
    links: Sequence[tuple[str, str, bool]]
    """(file, its other name, whether that must be a copy), to be made before the run."""
    outputs: Outputs
    """The folders that the job may write."""


def plan_mounts(inputs: Iterable[MountedInput], outputs: Mapping[str, Path], work: Path) -> Mounts:
    """How inputs and outputs (by path inside the job) are mounted; makes folders and mount points.

    WASI has only folders. So a file gets a second name in the folder that contains it: that of another input
    or output, or a read-only one, made below `work`, which has nothing but inputs.
    Blocks. Raises ExecutorError as `arrange`; OSError.
    """
    inputs = list(inputs)
    working_folder = _new_folder(work / "working-folder")
    layout = arrange([*inputs, *_parents(inputs, outputs, work)], outputs)
    preopens = [(str(working_folder), WORKING_FOLDER, True)]
    links = []
    for mount in layout.mounts:
        if mount.is_folder:
            preopens.append((str(mount.path), str(mount.target), not mount.read_only))
            if mount.outer is not None and mount.outer.owned:
                layout.make_mount_point(mount)
        else:
            links.append((str(mount.path), str(_name_of_file(layout, mount)), _is_changeable(mount)))
    return Mounts(layout, preopens, links, Outputs(outputs, [working_folder]))


def _parents(inputs: Sequence[MountedInput], outputs: Mapping[str, Path], work: Path) -> list[MountedInput]:
    """A folder for inputs that lie in no other input or output: for a file, since WASI has only folders; for
    folders such as /inputs/a and /inputs/b, so that the program can list /inputs."""
    folders = [*(each.place for each in inputs if each.path.is_dir()), *outputs]
    taken = {PurePosixPath(folder) for folder in folders}
    made: list[MountedInput] = []
    places = [(PurePosixPath(each.place), each.path.is_file()) for each in inputs]
    for place, is_file in sorted(places, key=lambda each: len(each[0].parts)):
        is_at_the_top = len(place.parts) <= 2
        parent = place.parent if is_at_the_top else PurePosixPath(*place.parts[:2])
        if taken.isdisjoint(place.parents) and (is_file or not is_at_the_top):
            folder = _new_folder(work / f"parent-{len(made)}")
            made.append(MountedInput(path=folder, target=str(parent), owned=True))
            taken.add(parent)
    return made


def _name_of_file(layout: Layout, mount: Mount) -> Path:
    assert mount.outer is not None
    if not mount.outer.owned:
        raise ExecutorError(
            f"{mount.target} is a file inside a folder of this node, {mount.outer.target}; WebAssembly cannot"
            " show it there"
        )
    return layout.make_mount_point(mount, filled=True)


def _is_changeable(mount: Mount) -> bool:
    """Whether the guest may change what is in the folder of this file."""
    return mount.outer is not None and not mount.outer.read_only


def _new_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    return path
