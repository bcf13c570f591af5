"""The conformance suite for storage providers fails for providers that break a promise."""

from __future__ import annotations

import dataclasses

import pytest

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.inline import InlineStorage
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit

CHECKS = {check.__name__.removeprefix("check_"): check for check in STORAGE_CHECKS}


def inline(url: str) -> SpecConfig:
    return SpecConfig(type="inline", params={"URL": url})


class OpensFiles(InlineStorage):
    def faults(self, source):
        with open(__file__):  # noqa: PTH123
            return super().faults(source)


class FindsNoFaults(InlineStorage):
    def faults(self, source):
        return []


class FindsFaultsInEverything(InlineStorage):
    async def input_faults(self, source):
        return [Fault("Params.URL", "is not to my liking")]


class DamagesData(InlineStorage):
    async def prepare(self, source, folder, *, hints=(), max_bytes=None):
        prepared = await super().prepare(source, folder, hints=hints)
        prepared.path.write_bytes(b"damaged")
        return prepared


class NeverCleansUp(InlineStorage):
    async def cleanup(self, prepared):
        pass


class ClaimsNotToOwn(InlineStorage):
    async def prepare(self, source, folder, *, hints=(), max_bytes=None):
        return dataclasses.replace(await super().prepare(source, folder, hints=hints), owned=False)


class Exaggerates(InlineStorage):
    async def size(self, source, *, hints=()):
        return InputSize(total=10**6, local=10**6)


@pytest.mark.parametrize(
    ("provider", "check"),
    [
        (OpensFiles, "valid_sources_have_no_faults"),
        (FindsNoFaults, "faults_are_named_by_path"),
        (FindsFaultsInEverything, "valid_sources_have_no_faults"),
        (DamagesData, "prepared_data_is_complete"),
        (NeverCleansUp, "cleanup_removes_what_is_owned_and_nothing_else"),
        (ClaimsNotToOwn, "owned_data_is_in_the_given_folder"),
        (Exaggerates, "the_size_of_prepared_data_is_known"),
    ],
)
async def test_a_broken_provider_fails(provider, check, tmp_path):
    kit = StorageKit(
        provider=provider(),
        folder=tmp_path,
        samples=[Sample(source=inline("data:,content"), content=b"content")],
        invalid=[(inline("ftp://host"), "Params.URL")],
        absent=None,
    )
    with pytest.raises(AssertionError):
        await CHECKS[check](kit)
