"""Several results in one folder: merged by name, and refused whole when two have the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.client.merging import MergedResults
from bacalhau_p2p.errors import ContentError


def write(folder: Path, **texts: str) -> None:
    for name, text in {"stdout": "said\n", "stderr": "", "exitCode": "0"}.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def merge(target: Path, results: dict[str, dict[str, str]]) -> None:
    with MergedResults(target) as merged:
        for name, texts in results.items():
            write(merged.place(name), **texts)
        merged.finish()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


STREAMS = {f"{name}/{file}" for name in ("a", "b") for file in ("stdout", "stderr", "exitCode")}


def test_outputs_are_merged_and_the_streams_of_each_stay_apart(tmp_path):
    merge(
        tmp_path / "job", {"a": {"outputs__x": "1", "outputs__deep__y": "2"}, "b": {"outputs__deep__z": "3"}}
    )
    assert files(tmp_path / "job") == STREAMS | {"outputs/x", "outputs/deep/y", "outputs/deep/z"}
    assert (tmp_path / "job" / "outputs" / "deep" / "z").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_links_are_merged_as_links_and_not_followed(tmp_path):
    with MergedResults(tmp_path / "job") as merged:
        for name in ("a", "b"):
            write(merged.place(name), **{f"outputs__of_{name}": name})
            (merged.place(name) / "outputs" / f"link_{name}").symlink_to(f"of_{name}")
        (merged.place("b") / "outputs" / "up").symlink_to("..")
        merged.finish()
    outputs = tmp_path / "job" / "outputs"
    assert {path.name for path in outputs.iterdir()} == {"of_a", "of_b", "link_a", "link_b", "up"}
    assert (outputs / "link_b").read_text() == "b"
    assert (outputs / "up").is_symlink()


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ({"outputs__x": "1"}, {"outputs__x": "1"}, "a and b both have outputs/x;"),
        ({"outputs__x": "1"}, {"outputs__x__y": "1"}, "a and b both have outputs/x;"),
        ({"outputs__x__y": "1"}, {"outputs__x": "1"}, "a and b both have outputs/x;"),
        ({"x": "1", "y": "1"}, {"x": "1", "y": "1"}, r"a and b both have x \(2 such paths\);"),
        ({}, {"a__stdout": "1"}, "a and b both have a/stdout;"),
    ],
)
def test_two_results_with_the_same_path_are_an_error_and_nothing_is_written(tmp_path, a, b, told):
    with pytest.raises(ContentError, match=told):
        merge(tmp_path / "job", {"a": a, "b": b})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", [True, False])
def test_what_a_result_calls_like_another_one_does_not_get_its_streams(tmp_path, link):
    with MergedResults(tmp_path / "job") as merged:
        write(merged.place("a"), outputs__x="1")
        write(merged.place("b"))
        if link:
            (merged.place("a") / "b").symlink_to("outputs")
        else:
            (merged.place("a") / "b").write_text("")
        with pytest.raises(ContentError, match="both have b;"):
            merged.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_keeps_what_it_has(tmp_path):
    (tmp_path / "job" / "outputs").mkdir(parents=True)
    (tmp_path / "job" / "outputs" / "mine").write_text("mine")
    merge(tmp_path / "job", {"a": {"outputs__x": "1"}, "b": {}})
    assert files(tmp_path / "job") == STREAMS | {"outputs/mine", "outputs/x"}
    with pytest.raises(ContentError, match="already exists"):
        merge(tmp_path / "job", {"c": {"outputs__mine": "1", "outputs__new": "1"}})
    assert (tmp_path / "job" / "outputs" / "mine").read_text() == "mine"
    assert files(tmp_path / "job") == STREAMS | {"outputs/mine", "outputs/x"}


def test_what_is_not_finished_leaves_nothing(tmp_path):
    with MergedResults(tmp_path / "job") as merged:
        write(merged.place("a"))
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_is_no_folder_is_an_error(tmp_path):
    with MergedResults(tmp_path / "job") as merged:
        merged.place("a").write_text("a file")
        with pytest.raises(ContentError, match="cannot write"):
            merged.finish()
    assert list(tmp_path.iterdir()) == []
