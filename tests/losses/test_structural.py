"""The structural loss against slow loops: cosine of keys and values, KL of the attention."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kava.attention import AttentionForm
from kava.losses import StructuralKVLoss, attention_kl, build_kv_loss
from kava.trace import KVTrace

from .conftest import MakePair

ATTENTION_ONLY = StructuralKVLoss(alpha_k=0.0, alpha_v=0.0, alpha_attn=1.0)


def call(
    loss: StructuralKVLoss, student: KVTrace, target: KVTrace, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return loss(
        student.keys,
        student.values,
        student.queries,
        target.keys,
        target.values,
        target.queries,
        mask,
    )


def attention_row(q: torch.Tensor, k: torch.Tensor, allowed: list[int]) -> list[float]:
    scores = [float(q @ k[j]) / math.sqrt(len(q)) for j in allowed]
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def slow_kl(student: KVTrace, target: KVTrace, mask: torch.Tensor) -> float:
    assert student.queries is not None
    assert target.queries is not None
    groups = student.queries.shape[2] // student.num_heads
    terms = []
    for b in range(student.batch_size):
        for t in range(student.length):
            if not mask[b, t]:
                continue
            allowed = [j for j in range(t + 1) if mask[b, j]]
            for layer in range(student.num_layers):
                for query_head in range(student.queries.shape[2]):
                    h = query_head // groups
                    p, q = (
                        attention_row(
                            x.queries[b, layer, query_head, t], x.keys[b, layer, h], allowed
                        )
                        for x in (target, student)
                    )
                    terms.append(sum(a * math.log(a / c) for a, c in zip(p, q)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("num_query_heads", [2, 6])
@pytest.mark.parametrize("left", [False, True])
def test_the_divergence_is_its_formula(
    num_query_heads: int, left: bool, make_pair: MakePair
) -> None:
    student, target = (
        trace.detach() for trace in make_pair(num_query_heads=num_query_heads, scale=1.0)
    )
    mask = target.valid_BT()
    mask = mask.flip(1) if left else mask
    loss, metrics = call(ATTENTION_ONLY, student, target, mask)
    expected = slow_kl(student, target, mask)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert metrics["attn_loss"].item() == pytest.approx(expected, rel=1e-4)


def test_identical_input_costs_nothing(make_pair: MakePair) -> None:
    student, target = make_pair()
    loss, _ = call(StructuralKVLoss(), student, student, target.mask)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_keys_and_values_are_compared_by_direction(make_pair: MakePair) -> None:
    _, target = make_pair()
    opposite = replace(target, keys=-3 * target.keys, values=7 * target.values)
    loss, metrics = call(StructuralKVLoss(alpha_attn=0.0), opposite, target, target.mask)
    assert metrics["k_loss"].item() == pytest.approx(2.0)
    assert metrics["v_loss"].item() == pytest.approx(0.0, abs=1e-6)
    assert metrics["k_cos_sim"].item() == pytest.approx(-1.0)
    assert loss.item() == pytest.approx(2.0)


def test_rotating_queries_and_keys_together_leaves_the_attention(make_pair: MakePair) -> None:
    student, target = make_pair()
    assert student.queries is not None
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3)))
    turned = replace(student, keys=student.keys @ rotation, queries=student.queries @ rotation)
    loss, _ = call(ATTENTION_ONLY, student, target, target.mask)
    same, _ = call(ATTENTION_ONLY, turned, target, target.mask)
    torch.testing.assert_close(same, loss, rtol=1e-4, atol=1e-5)


def test_each_alpha_ablates_its_term(make_pair: MakePair) -> None:
    student, target = make_pair()
    _, metrics = call(StructuralKVLoss(), student, target, target.mask)
    for alphas, term in [((2, 0, 0), "k_loss"), ((0, 2, 0), "v_loss"), ((0, 0, 2), "attn_loss")]:
        loss, _ = call(StructuralKVLoss(*alphas), student, target, target.mask)
        torch.testing.assert_close(loss, 2 * metrics[term])
        assert metrics[term] > 0.01
        grads = torch.autograd.grad(
            loss,
            [student.keys, student.values, student.queries],  # type: ignore[list-item]
            allow_unused=True,
        )
        reached = [g is not None for g in grads]
        assert reached == [alphas[1] == 0, alphas[1] > 0, alphas[2] > 0]
        assert all(g.any() for g in grads if g is not None)


def test_without_attention_no_queries_are_needed(make_pair: MakePair) -> None:
    student, target = (replace(trace, queries=None) for trace in make_pair())
    call(StructuralKVLoss(alpha_attn=0.0), student, target)
    build_kv_loss("structural", alpha_attn=0.0)(student, target)


def test_a_row_of_padding_only_stays_finite_in_the_backward_pass(make_pair: MakePair) -> None:
    student, target = make_pair(lengths=(4, 4))
    mask = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    loss, _ = call(StructuralKVLoss(), student, target, mask)
    loss.backward()
    for part in (student.keys, student.values, student.queries):
        assert part is not None
        assert part.grad is not None
        assert torch.isfinite(part.grad).all()
        assert not part.grad[:, :, :, :2].any()


@pytest.mark.parametrize(
    "change",
    [{"num_layers": 8}, {"num_heads": 4, "num_query_heads": 8}, {"lengths": (64, 64)}],
    ids=str,
)
def test_the_scale_does_not_grow_with_layers_heads_or_length(
    change: dict[str, int], make_pair: MakePair
) -> None:
    base = {"lengths": (32, 32), "num_layers": 2, "num_heads": 2, "scale": 1.0}
    small, large = (call(StructuralKVLoss(), *make_pair(**{**base, **c})) for c in ({}, change))
    for name in ("k_loss", "v_loss", "attn_loss"):
        assert large[1][name].item() == pytest.approx(small[1][name].item(), rel=0.15)


def test_chunks_of_rows_give_the_same_loss_and_gradient(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, target = make_pair(lengths=(11, 7), scale=1.0)
    inputs = [student.keys, student.queries]
    whole, _ = call(ATTENTION_ONLY, student, target, target.mask)
    whole_grads = torch.autograd.grad(whole, inputs)  # type: ignore[arg-type]
    monkeypatch.setattr(attention_kl, "CHUNK_ROWS", 4)
    chunked, _ = call(ATTENTION_ONLY, student, target, target.mask)
    torch.testing.assert_close(chunked, whole)
    for ours, theirs in zip(torch.autograd.grad(chunked, inputs), whole_grads):  # type: ignore[arg-type]
        torch.testing.assert_close(ours, theirs)


def test_input_that_does_not_fit_is_refused(make_pair: MakePair) -> None:
    student, target = make_pair()
    _, wide = make_pair(num_query_heads=8)
    with pytest.raises(ValueError, match=r"student queries .* differ in shape; align"):
        call(StructuralKVLoss(), student, wide)
    with pytest.raises(ValueError, match="needs the queries of student and teacher"):
        call(StructuralKVLoss(), student, replace(target, queries=None))
    with pytest.raises(ValueError, match="the target trace has none; capture it with queries=True"):
        build_kv_loss("structural")(student, replace(target, queries=None))
    assert student.queries is not None
    odd, keys, values = student.queries[:, :, :3], student.keys, student.values
    with pytest.raises(ValueError, match="3 query heads are no multiple of 2"):
        StructuralKVLoss()(keys, values, odd, keys, values, odd)


SINKS = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.0, 0.0, -0.5, 0.3]])
FORMS = {
    "scaling": AttentionForm(scaling=(0.9, 0.1)),
    "soft cap": AttentionForm(scaling=(0.4, 0.4), softcap=(0.7, None)),
    "window": AttentionForm(scaling=(0.4, 0.4), window=(2, None)),
    "chunk": AttentionForm(scaling=(0.4, 0.4), chunk=(None, 2)),
    "sinks": AttentionForm(scaling=(0.4, 0.4), sinks=SINKS),
}


def row_of(trace: KVTrace, form: AttentionForm, b: int, layer: int, q: int, t: int) -> list[float]:
    """One row of a query head, over the columns that its layer sees; the sink comes last."""
    assert trace.queries is not None
    keys = trace.keys[b, layer, q // 2].detach().double()
    query = trace.queries[b, layer, q, t].detach().double()
    logits = []
    for j in seen(form, layer, t):
        logit = float(query @ keys[j]) * form.scaling[layer]
        cap = form.softcap[layer] if form.softcap else None
        logits.append(logit if cap is None else cap * math.tanh(logit / cap))
    if form.sinks is not None:
        logits.append(float(form.sinks[layer, q]))
    weights = [math.exp(logit) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def seen(form: AttentionForm, layer: int, t: int) -> list[int]:
    window = form.window[layer] if form.window else None
    chunk = form.chunk[layer] if form.chunk else None
    return [
        j
        for j in range(t + 1)
        if (window is None or t - j < window) and (chunk is None or t // chunk == j // chunk)
    ]


@pytest.mark.parametrize("name", FORMS)
def test_each_side_attends_as_its_model_does(name: str, make_pair: MakePair) -> None:
    form = FORMS[name]
    student, target = make_pair(lengths=(5, 3), scale=1.0)
    student = replace(student, attention=form)
    told, _ = ATTENTION_ONLY.compare_traces(student, replace(target, attention=form))
    terms = []
    for b, length in enumerate((5, 3)):
        for t in range(length):
            for layer in range(2):
                for q in range(4):
                    p, s = (row_of(x, form, b, layer, q, t) for x in (target, student))
                    terms.append(sum(a * math.log(a / c) for a, c in zip(p, s)))
    assert told.item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    # a side that does not say attends as the other, as a mapped target does
    silent, _ = ATTENTION_ONLY.compare_traces(student, target)
    torch.testing.assert_close(silent, told)
    usual, _ = ATTENTION_ONLY.compare_traces(replace(student, attention=None), target)
    assert abs(usual.item() - told.item()) > 1e-3
    by_tensors, _ = ATTENTION_ONLY(
        student.keys, student.values, student.queries, target.keys, target.values, target.queries,
        target.mask, attention=form,
    )  # fmt: skip
    torch.testing.assert_close(by_tensors, told)


def test_what_one_side_does_not_see_is_left_out_of_both(make_pair: MakePair) -> None:
    """Kept positions of a text stand far apart, latents side by side."""
    student, target = make_pair(lengths=(4, 4), scale=1.0)
    form = AttentionForm(scaling=(0.4, 0.4), window=(3, 3))
    near, far = torch.arange(4).expand(2, 4), (10 * torch.arange(4)).expand(2, 4)
    student = replace(student, attention=form, positions=near)
    apart, _ = ATTENTION_ONLY.compare_traces(student, replace(target, positions=far))
    # no query of the target sees more than itself
    assert apart.item() == pytest.approx(0.0, abs=1e-6)
    together, _ = ATTENTION_ONLY.compare_traces(student, replace(target, positions=near))
    assert together.item() > 1e-3
    together.backward()
    assert student.queries is not None
    assert torch.isfinite(student.queries.grad).all()  # type: ignore[arg-type]


def test_a_sink_on_one_side_alone_is_left_out(make_pair: MakePair) -> None:
    student, target = make_pair(lengths=(4, 4), scale=1.0)
    plain = AttentionForm(scaling=(0.4, 0.4))
    with_sinks = replace(target, attention=FORMS["sinks"])
    found, _ = ATTENTION_ONLY.compare_traces(replace(student, attention=plain), with_sinks)
    wanted, _ = ATTENTION_ONLY.compare_traces(
        replace(student, attention=plain), replace(target, attention=plain)
    )
    torch.testing.assert_close(found, wanted)
