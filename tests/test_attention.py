"""Attention rebuilt from a trace is the model's own, in every family that is supported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attention_families import FAMILIES, LAYERS, REFUSED, refused, refused_row, row
from families import VOCAB_SIZE
from kava.attention import AttentionForm, attention
from kava.models.capture import capture, check_attention, position_ids_from_mask, rebuilds_attention
from kava.trace import KVTrace
from kava.train.models import build_distiller
from train.runs import small

T, PADDING = 11, 3
DOCUMENTATION = Path(__file__).parents[1] / "docs" / "traces.md"


def text() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, the first of them padded on the left."""
    ids = torch.randint(1, VOCAB_SIZE, (2, T), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :PADDING] = 0
    return ids, mask


def rebuilt(trace: KVTrace, form: AttentionForm | None) -> torch.Tensor:
    """[B, L, Hq, T, T]: all rows of a trace's attention."""
    B, L, H, _, _ = trace.keys.shape
    assert form is not None
    assert trace.queries is not None
    assert trace.positions is not None
    heads = form.of_heads(B, H, trace.keys.device)
    valid_NT = trace.valid_BT().repeat_interleave(L * H, dim=0)
    positions_NT = trace.positions.repeat_interleave(L * H, dim=0)
    future_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
    hidden_NTT = future_TT | ~valid_NT[:, None] | heads.out_of_reach(positions_NT, positions_NT)
    # a row of padding alone may come out of the model as NaN
    queries_NGTD = trace.queries.nan_to_num().unflatten(2, (H, -1)).flatten(0, 2)
    keys_NTD = trace.keys.nan_to_num().flatten(0, 2)
    weights_NGTT = attention(queries_NGTD, keys_NTD, heads, hidden_NTT[:, None])
    return weights_NGTT.view(B, L, -1, T, T)


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_rebuilt_from_a_trace_is_the_models_own(name: str) -> None:
    family, (ids, mask) = FAMILIES[name], text()
    model = family.build()
    with torch.no_grad():
        _, trace = capture(model, ids, mask, queries=True)
        given = model(
            ids,
            attention_mask=mask,
            position_ids=position_ids_from_mask(mask),
            output_attentions=True,
        ).attentions
    form = trace.attention
    assert form is not None
    each = family.scaling if isinstance(family.scaling, tuple) else (family.scaling,) * LAYERS
    assert form.scaling == pytest.approx(each)
    assert (form.window, form.chunk) == (family.window, family.chunk)
    assert (bool(form.softcap), form.sinks is not None) == (family.softcap, family.sinks)
    rows_BT = mask.bool()
    wanted = torch.stack(given, dim=1).transpose(2, 3)[rows_BT[:, None].expand(-1, LAYERS, -1)]

    def rows(form: AttentionForm) -> torch.Tensor:
        found = rebuilt(trace, form).transpose(2, 3)
        return found[rows_BT[:, None].expand(-1, LAYERS, -1)]

    torch.testing.assert_close(rows(form), wanted, atol=1e-5, rtol=0)
    usual = AttentionForm.usual(LAYERS, trace.head_dim)
    alike = torch.allclose(rows(usual), wanted, atol=1e-3)
    own = family.scaled_by != "1/√D" or form.has_reach or form.softcap or form.sinks is not None
    assert alike == (not own)


@pytest.mark.parametrize("name", ["Mistral", "Gemma 3 (text)", "Llama 4 (text)", "GPT-2"])
def test_another_attention_implementation_has_the_same_form(name: str) -> None:
    ids, mask = text()
    traces = []
    for attention_kind in ("sdpa", "eager"):
        with torch.no_grad():
            _, trace = capture(FAMILIES[name].build(attention_kind), ids, mask, queries=True)
        traces.append(trace)
    ours, theirs = (trace.attention for trace in traces)
    assert ours is not None
    assert theirs is not None
    assert (ours.scaling, ours.window, ours.chunk) == (theirs.scaling, theirs.window, theirs.chunk)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_whose_attention_cannot_be_rebuilt_is_refused(name: str) -> None:
    model = refused(name)
    model.train()
    with pytest.raises(ValueError, match=r"cannot be (recorded|rebuilt).*knockout") as caught:
        check_attention(model)
    assert "\n" not in str(caught.value)
    assert type(model).__name__ in str(caught.value)
    assert model.training
    assert not rebuilds_attention(model)
    # keys and values are there for all that does not look at attention
    ids, mask = text()
    _, trace = capture(model.eval(), ids, mask)
    assert trace.attention is None


def test_the_documentation_names_every_family() -> None:
    lines = DOCUMENTATION.read_text(encoding="utf-8").splitlines()
    wanted = [row(name, family) for name, family in FAMILIES.items()]
    wanted += [refused_row(name) for name in REFUSED]
    assert [line for line in wanted if line not in lines] == []
    first = lines.index(wanted[0])
    table = [line for line in lines[first:] if line.startswith("| ")]
    assert len(table) >= len(wanted)
    known = set(wanted)
    assert [line for line in lines[first : first + len(FAMILIES)] if line not in known] == []


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"kv_method": "rkv"}, "--kv_method rkv"),
        ({"kv_loss": "structural"}, "--kv_loss structural"),
        ({"attention_weighted_kv": True}, "--attention_weighted_kv"),
    ],
)
@pytest.mark.parametrize("name", REFUSED)
def test_a_run_that_needs_what_cannot_be_rebuilt_names_its_flag(
    name: str, flags: dict[str, Any], named: str, tmp_path: Path
) -> None:
    refused(name).save_pretrained(tmp_path)
    plain = {"kv_method": "uniform", "kv_layer_std": False, "key_space": "rotated"}
    settings = small(model_name=str(tmp_path), **plain | flags)
    with pytest.raises(ValueError, match=rf"^{named} looks at attention, but the \w+ of \w+ ") as e:
        build_distiller(settings)
    assert "\n" not in str(e.value)
    build_distiller(small(model_name=str(tmp_path), **plain))
