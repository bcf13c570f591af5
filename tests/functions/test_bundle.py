from __future__ import annotations

from bacalhau_p2p.functions.bundle import Bundle
from bacalhau_p2p.functions.capture import capture
from bacalhau_p2p.functions.packages import Packages, load


def one() -> int:
    return 1


def two() -> int:
    return 2


def test_a_bundle_is_a_folder_with_programs_the_function_and_its_packages(tmp_path):
    packages = Packages({"a/b.py": b"x = 1"}, ("a",), "digest")
    Bundle.of(capture(one), packages).write(tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"run.py", "values.py", "function.json", "packages/a/b.py"}
    assert (tmp_path / "packages/a/b.py").read_bytes() == b"x = 1"


def test_the_digest_is_that_of_all_that_is_in_it():
    bundles = [
        Bundle.of(capture(one), load([])),
        Bundle.of(capture(two), load([])),
        Bundle.of(capture(one), Packages({}, (), "other")),
    ]
    assert len({bundle.digest for bundle in bundles}) == 3
    assert Bundle.of(capture(one), load([])).digest == bundles[0].digest
