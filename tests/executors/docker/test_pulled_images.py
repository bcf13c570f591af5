from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.executors.docker.pulled_images import MAX_REMEMBERED, USE_PRECISION, PulledImages


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(pulled: PulledImages) -> list[str]:
    return [image.name for image in pulled.least_recently_used()]


def test_images_are_remembered_over_a_restart_by_their_last_use(tmp_path: Path, clock: Clock) -> None:
    pulled = PulledImages(tmp_path / "images.json", clock)
    for name in ("a", "b", "c"):
        pulled.add(name, f"id-{name}")
        clock.now += 1
    clock.now += USE_PRECISION
    pulled.use("a")
    pulled.forget("b")
    again = PulledImages(tmp_path / "images.json", clock)
    assert names(again) == ["c", "a"]
    assert again.least_recently_used()[1].image_id == "id-a"


def test_the_use_of_an_image_that_somebody_else_pulled_is_not_remembered(clock: Clock) -> None:
    pulled = PulledImages(None, clock)
    pulled.use("busybox")
    assert names(pulled) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"name": "a"}]', "\0", "[" * 5000])
def test_a_damaged_file_is_forgotten(tmp_path: Path, clock: Clock, content: str) -> None:
    path = tmp_path / "images.json"
    path.write_text(content)
    pulled = PulledImages(path, clock)
    assert names(pulled) == []
    pulled.add("a", "id")
    assert names(PulledImages(path, clock)) == ["a"]


def test_the_number_of_images_is_limited(clock: Clock) -> None:
    pulled = PulledImages(None, clock)
    for number in range(MAX_REMEMBERED + 5):
        clock.now += 1
        pulled.add(str(number), "id")
    assert len(names(pulled)) == MAX_REMEMBERED
    assert names(pulled)[0] == "5"
