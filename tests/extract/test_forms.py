"""The forms of a store: what each loses, and that it is stated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from extract.stores import manifest_of, store
from kava.names import STORE_EXTRAS, STORE_FORMS, STORE_TIERS
from kava.store.forms import FORMS, FormError, pack, unpack
from kava.store.manifest import FULL, TARGETS, error_line
from kava.store.reader import Tier
from kava.store.teacher import ANSWER, CALIBRATION, CODI, QUERIES, WEIGHTS

HALF_STEP = {"float32": 0.0, "bfloat16": 2**-8, "float16": 2**-11, "int8": 1 / 254}
"""The largest loss of a number, relative to the largest of its vector."""


@pytest.mark.parametrize("form", FORMS)
def test_no_number_is_off_by_more_than_half_a_step(form: str) -> None:
    part = torch.randn(2, 3, 5, 16) * torch.logspace(-3, 3, 5)[:, None]
    packed = pack("keys", part, form)
    lost = (unpack("keys", packed).float() - part).abs()
    limit = HALF_STEP[form] * part.abs().amax(-1, keepdim=True)
    assert bool((lost <= limit * 1.0001).all())


def test_the_error_of_a_form_is_that_of_its_numbers() -> None:
    first, second = torch.randn(2, 3, 5, 16), torch.randn(1, 3, 4, 16)
    error = FormError()
    squares = lost = 0.0
    for part in (first, second):
        packed = pack("keys", part, "int8")
        error.see("keys", part, packed)
        squares += float(part.square().sum())
        lost += float((unpack("keys", packed) - part).square().sum())
    assert error.relative()["keys"] == pytest.approx((lost / squares) ** 0.5, rel=1e-4)
    assert 1e-3 < error.relative()["keys"] < 1e-2


def test_vectors_of_zeros_stay_zeros() -> None:
    assert not unpack("keys", pack("keys", torch.zeros(1, 1, 2, 4), "int8")).any()


def test_what_a_form_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="numbers above 65504, where float16 ends"):
        pack("keys", torch.full((1, 1, 1, 2), 1e6), "float16")
    for form in FORMS:
        with pytest.raises(ValueError, match="NaN or infinity"):
            pack("keys", torch.tensor([[[[1.0, torch.nan]]]]), form)


@pytest.mark.parametrize("form", ["bfloat16", "float16", "int8"])
def test_a_store_states_its_error_and_takes_less_room(form: str, tmp_path: Path) -> None:
    store(tmp_path / "exact", full=True)
    store(tmp_path / "store", full=True, form=form, shard_bytes=2**15)
    manifest, exact = manifest_of(tmp_path / "store"), manifest_of(tmp_path / "exact")
    for tier in (FULL, TARGETS):
        assert form in error_line(manifest, tier)
        assert "relative error keys" in error_line(manifest, tier)
        ours, theirs = (
            sum(shard.num_bytes for shard in one.of_tier(tier)) for one in (manifest, exact)
        )
        assert ours < theirs
        squares = lost = 0.0
        readers = (Tier(tmp_path / n, m, tier) for n, m in (("store", manifest), ("exact", exact)))
        rounded, whole = readers
        for digest, row in whole._row_of.items():
            found = rounded.row(digest)
            assert found is not None
            true = whole.read(row)["values"]
            squares += float(true.double().square().sum())
            lost += float((unpack("values", rounded.read(found)).double() - true).square().sum())
        stated = manifest.errors[tier]
        share = (stated["errors"]["values"] / stated["squares"]["values"]) ** 0.5
        assert share == pytest.approx((lost / squares) ** 0.5, rel=1e-3)


def test_the_names_that_need_no_torch_are_those_of_the_store() -> None:
    assert tuple(FORMS) == STORE_FORMS
    assert set(STORE_TIERS) == {FULL, TARGETS}
    assert sorted((ANSWER, CALIBRATION, CODI, QUERIES, WEIGHTS)) == list(STORE_EXTRAS)
