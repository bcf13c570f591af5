from __future__ import annotations

import os
from pathlib import Path

import pytest

from bacalhau_p2p.executors.docker.ownership import JobUser
from bacalhau_p2p.executors.docker.writable_folders import environment_with_home, give_folder

USER = JobUser(1234, 55)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, list[str]]:
    """An empty layer above two of an image."""
    for name in ("upper", "top", "base"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "srv" / "app").mkdir(parents=True)
    (tmp_path / "base" / "srv").chmod(0o1777)
    (tmp_path / "base" / "srv" / "app").chmod(0o750)
    return str(tmp_path / "upper"), [str(tmp_path / "top"), str(tmp_path / "base")]


def owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_folder_of_the_image_is_given_to_the_job_and_those_above_stay(layers, umask) -> None:
    upper, lower = layers
    before = os.umask(umask)
    try:
        give_folder(upper, lower, "/srv/app", USER)
        give_folder(upper, lower, "/new/home", USER)
    finally:
        os.umask(before)
    assert owner(Path(upper) / "srv") == (0, 0, 0o1777)
    assert owner(Path(upper) / "srv" / "app") == (1234, 55, 0o750)
    assert owner(Path(upper) / "new") == (0, 0, 0o755)
    assert owner(Path(upper) / "new" / "home") == (1234, 55, 0o755)


def test_the_root_of_the_container_is_a_folder_too(layers) -> None:
    upper, lower = layers
    give_folder(upper, lower, "/", USER)
    assert owner(Path(upper))[:2] == (1234, 55)


def test_a_folder_that_the_image_gives_to_another_user_stays_that_users(layers) -> None:
    upper, lower = layers
    os.chown(f"{lower[1]}/srv/app", 7, 8)
    give_folder(upper, lower, "/srv/app", USER)
    assert owner(Path(upper) / "srv" / "app") == (7, 8, 0o750)


@pytest.mark.parametrize("layer", [0, 1])
def test_no_symlink_of_an_image_is_followed(layers, tmp_path: Path, layer: int) -> None:
    upper, lower = layers
    outside = tmp_path / "outside"
    (outside / "app").mkdir(parents=True)
    Path(lower[layer], "way").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        give_folder(upper, lower, "/way/app", USER)
    assert owner(outside / "app")[:2] == (0, 0)
    assert list(Path(upper).iterdir()) == []


def test_home_is_set_for_users_that_the_image_does_not_know() -> None:
    assert environment_with_home({"A": "1"}, USER, writable=True) == {"HOME": "/home/job", "A": "1"}
    assert environment_with_home({}, USER, writable=False) == {"HOME": "/tmp"}
    assert environment_with_home({"HOME": "/x"}, USER, writable=True) == {"HOME": "/x"}
    assert environment_with_home({}, JobUser(1, 1, of_image=True), writable=True) == {}
