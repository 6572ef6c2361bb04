"""Names that users of the method know, against slow loops: shapes, values, gradients, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import kava
from kava import (
    EntropyRegularizer,
    HeadwiseMapProjector,
    LearnableRouter,
    MultiTeacherHeadDimAdapter,
    MultiTeacherRoPEScaler,
    build_multi_teacher_layer_map,
    compute_multi_teacher_prototypes,
    compute_routing_weights,
    compute_similarity,
    compute_teacher_prototype,
    fuse_kvs_fixed,
    fuse_kvs_learnable,
    fuse_kvs_similarity,
    fuse_multi_teacher_kv,
    layer_map,
    merge_multi_teacher_kvs,
    rotate,
)
from kava.rope import Rotary, build_scaling

B, T, D, N, K, L = 3, 6, 8, 3, 2, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def teachers(num: int = N) -> list[Tensor]:
    return [drawn(B, T, D, seed=n) for n in range(num)]


# ------------------------------------------------------------------ fusion


@pytest.mark.parametrize("weights", [None, [0.5, 0.3, 0.2], [2, 1, 1], [0, 1, 0]])
def test_fixed_fusion_is_the_weighted_mean(weights: list[float] | None) -> None:
    kvs = teachers()
    shares = [1.0] * N if weights is None else weights
    expected = torch.zeros(B, T, D)
    for share, one in zip(shares, kvs):
        expected += share / sum(shares) * one
    torch.testing.assert_close(fuse_kvs_fixed(kvs, weights), expected)


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("lead", [(), (B,), (B, K)])
@pytest.mark.parametrize("method", ["cosine", "dot", "l2", "euclidean"])
def test_similarity_fusion_weighs_by_a_softmax(
    by_position: bool, lead: tuple[int, ...], method: str
) -> None:
    kvs, temperature = teachers(), 0.5
    query = drawn(B, T, D, seed=50) if by_position else drawn(B, D, seed=50)
    prototypes = [drawn(*lead, D, seed=60 + n) for n in range(N)]
    fused, weights = fuse_kvs_similarity(kvs, query, prototypes, temperature, method)
    assert weights.shape == ((B, T, N) if by_position else (B, N))

    def alike(vector: Tensor, prototype: Tensor) -> float:
        clusters = prototype if prototype.ndim == 2 else prototype[None]
        found = []
        for one in clusters:
            dot = sum(float(x * y) for x, y in zip(vector, one))
            if method == "cosine":
                found.append(dot / float(vector.norm() * one.norm()))
            elif method == "dot":
                found.append(dot / D**0.5)
            else:
                found.append(-((sum(float((x - y) ** 2) for x, y in zip(vector, one)) / D) ** 0.5))
        return max(found)

    for b in range(B):
        for t in range(T):
            vector = query[b, t] if by_position else query[b]
            scores = [alike(vector, one[b] if lead else one) / temperature for one in prototypes]
            shares = torch.tensor(scores).softmax(0)
            torch.testing.assert_close(weights[b, t] if by_position else weights[b], shares)
            expected = sum(share * one[b, t] for share, one in zip(shares, kvs))
            torch.testing.assert_close(fused[b, t], expected)


@pytest.mark.parametrize("router_type", ["mlp", "gate", "attention"])
@pytest.mark.parametrize("by_position", [False, True])
def test_learnable_fusion_mixes_by_the_router_and_trains_it(
    router_type: str, by_position: bool
) -> None:
    torch.manual_seed(0)
    router = LearnableRouter(5, N, router_type).eval()
    for part in router.parameters():
        torch.nn.init.normal_(part)
    query = drawn(B, T, 5, seed=50) if by_position else drawn(B, 5, seed=50)
    kvs = teachers()
    fused, weights = fuse_kvs_learnable(kvs, query, router)
    assert weights.shape == ((B, T, N) if by_position else (B, N))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert weights.std() > 0.01
    for b in range(B):
        for t in range(T):
            shares = weights[b, t] if by_position else weights[b]
            expected = sum(share * one[b, t] for share, one in zip(shares, kvs))
            torch.testing.assert_close(fused[b, t], expected)
    fused.square().sum().backward()
    for name, part in router.named_parameters():
        assert part.grad is not None, name
        assert part.grad.abs().sum() > 0, name


def test_a_new_router_prefers_no_teacher_and_reads_any_scale() -> None:
    query = drawn(B, D)
    for kind in ("mlp", "gate"):
        assert torch.equal(LearnableRouter(D, N, kind)(query), torch.full((B, N), 1 / N))
    router = LearnableRouter(D, N, "attention").eval()
    torch.testing.assert_close(router(query), router(1000 * query), atol=1e-4, rtol=1e-4)


def test_entropy_regularizers_pull_in_opposite_directions() -> None:
    shares = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    entropy = -sum(float(p * p.log()) for p in shares.flatten() if p > 0) / len(shares)
    log_n = float(torch.tensor(3.0).log())
    diverse, specialized = (
        float(EntropyRegularizer(target, 0.5).compute_loss(shares))
        for target in ("diverse", "specialized")
    )
    assert diverse == pytest.approx(0.5 * (log_n - entropy))
    assert specialized == pytest.approx(0.5 * entropy)
    for target, wanted in (("diverse", [0.5, 0.5]), ("specialized", [1.0, 0.0])):
        logits = torch.tensor([0.5, 0.0], requires_grad=True)
        for _ in range(300):
            (slope,) = torch.autograd.grad(
                EntropyRegularizer(target, 1.0).compute_loss(logits.softmax(-1)), logits
            )
            logits = (logits - slope).detach().requires_grad_()
        torch.testing.assert_close(logits.softmax(-1), torch.tensor(wanted), atol=0.05, rtol=0)


# ------------------------------------------------------------------ prototypes


def slow_prototype(positions: Tensor, method: str, num_clusters: int) -> Tensor:
    """Of one sample's valid positions [t, D]."""
    if method == "mean":
        return sum(positions) / len(positions)  # type: ignore[return-value]
    if method == "max":
        return torch.tensor([max(float(x) for x in positions[:, d]) for d in range(D)])
    if method == "cls":
        return positions[0]
    k = num_clusters
    centres = [positions[i * (len(positions) - 1) // (k - 1)] for i in range(k)]
    for _ in range(10):
        nearest = [min(range(k), key=lambda c: float((x - centres[c]).norm())) for x in positions]
        for c in range(k):
            members = [x for x, own in zip(positions, nearest) if own == c]
            if members:
                centres[c] = sum(members) / len(members)
    return torch.stack(centres)


@pytest.mark.parametrize("method", ["mean", "cls", "max", "kmeans"])
@pytest.mark.parametrize("with_layers", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_prototype_stands_for_the_valid_positions(
    method: str, with_layers: bool, masked: bool
) -> None:
    kvs = drawn(L, B, T, D) if with_layers else drawn(B, T, D)
    mask = torch.ones(B, T, dtype=torch.long)
    if masked:
        mask[0, :2], mask[1, 4:] = 0, 0
        kvs = kvs.masked_fill(mask[..., None] == 0, float("nan"))  # padding may hold anything
    found = compute_teacher_prototype(kvs, method, mask if masked else None, num_clusters=K)
    clusters = (K,) if method == "kmeans" else ()
    assert found.shape == (*kvs.shape[:-2], *clusters, D)
    layers = zip(kvs, found) if with_layers else [(kvs, found)]
    for samples, prototypes in layers:
        for b in range(B):
            expected = slow_prototype(samples[b][mask[b] == 1], method, K)
            torch.testing.assert_close(prototypes[b], expected)


@pytest.mark.parametrize("method", ["mean", "cls", "max", "kmeans"])
def test_a_sample_without_positions_has_a_prototype_of_zeros(method: str) -> None:
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1] = False
    assert not compute_teacher_prototype(drawn(B, T, D), method, mask)[1].any()


def test_prototypes_of_several_teachers_are_those_of_each() -> None:
    kvs, mask = teachers(2), torch.ones(B, T)
    mask[:, 0] = 0
    found = compute_multi_teacher_prototypes(kvs, "mean", [None, mask])
    assert torch.equal(found[0], compute_teacher_prototype(kvs[0]))
    assert torch.equal(found[1], compute_teacher_prototype(kvs[1], "mean", mask))


def test_routing_weights_sharpen_as_the_temperature_falls() -> None:
    query = drawn(B, D, seed=1)
    prototypes = [query + 0.1 * drawn(B, D, seed=2), drawn(B, D, seed=3)]
    warm, cold = (compute_routing_weights(query, prototypes, t) for t in (1.0, 0.01))
    assert warm.shape == (B, 2)
    assert (cold[:, 0] > warm[:, 0]).all()
    assert (cold[:, 0] > 0.99).all()
    for method in ("cosine", "l2"):
        alike = [compute_similarity(query, one, method) for one in prototypes]
        assert (alike[0] > alike[1]).all()


# ------------------------------------------------------------------ layers, heads and rotations


@pytest.mark.parametrize("strategy", ["ratio", "uniform", "skip"])
def test_layers_are_mapped_then_mixed(strategy: str) -> None:
    counts, weights = [4, 7], [0.75, 0.25]
    maps = build_multi_teacher_layer_map(counts, 3, strategy)
    assert all(torch.equal(one, layer_map(n, 3, strategy)) for one, n in zip(maps, counts))
    layers = [[drawn(B, T, D, seed=10 * n + i) for i in range(n)] for n in counts]
    found = merge_multi_teacher_kvs(layers, maps, 3, weights)
    assert len(found) == 3
    for s in range(3):
        expected = torch.zeros(B, T, D)
        for own, one, weight in zip(layers, maps, weights):
            for t, layer in enumerate(own):
                expected += weight * one[s, t] * layer
        torch.testing.assert_close(found[s], expected)
    equal = merge_multi_teacher_kvs(layers, maps)
    torch.testing.assert_close(equal[0], merge_multi_teacher_kvs(layers, maps, 3, [1, 1])[0])


def test_named_teachers_have_named_weights() -> None:
    kvs = {"a": (drawn(B, T, D), drawn(B, T, D, seed=1)),
           "b": (drawn(B, T, D, seed=2), drawn(B, T, D, seed=3))}  # fmt: skip
    keys, values = fuse_multi_teacher_kv(kvs, {"b": 3, "a": 1})
    torch.testing.assert_close(keys, 0.25 * kvs["a"][0] + 0.75 * kvs["b"][0])
    torch.testing.assert_close(values, 0.25 * kvs["a"][1] + 0.75 * kvs["b"][1])


def test_the_adapter_is_a_projector_for_keys_and_for_values_of_each_teacher() -> None:
    torch.manual_seed(0)
    adapter = MultiTeacherHeadDimAdapter([(24, 6), (40, 5)], 16, 4, init_identity=False)
    keys = [drawn(B, T, 24), drawn(B, T, 40, seed=1)]
    values = [drawn(B, T, 24, seed=2), drawn(B, T, 40, seed=3)]
    ours = adapter(keys, values)
    projectors = [one for one in adapter.modules() if isinstance(one, HeadwiseMapProjector)]
    assert len(projectors) == 4
    for found, given, maps in zip(ours, (keys, values), (projectors[:2], projectors[2:])):
        for one, x, projector, heads in zip(found, given, maps, (6, 5)):
            assert one.shape == (B, T, 16)
            for b in range(B):
                for t in range(T):
                    parts = x[b, t].view(heads, 1, -1)  # [H, 1, D]
                    torch.testing.assert_close(one[b, t], projector(parts).flatten())
    sum(one.square().sum() for part in ours for one in part).backward()
    assert all(part.grad is not None and part.grad.any() for part in adapter.parameters())
    split = [x.unflatten(2, (heads, -1)).transpose(1, 2) for x, heads in zip(keys, (6, 5))]
    for one, flat in zip(adapter(split, split)[0], ours[0]):
        assert one.shape == (B, 4, T, 4)
        torch.testing.assert_close(one.transpose(1, 2).flatten(2), flat)


def test_the_adapter_starts_as_the_identity_where_nothing_differs() -> None:
    adapter = MultiTeacherHeadDimAdapter([(16, 4)], 16, 4, use_conv=True)
    keys = [drawn(B, T, 16)]
    assert torch.equal(adapter(keys, keys)[0][0], keys[0])


@pytest.mark.parametrize("method", ["linear", "ntk", "dynamic"])
def test_keys_are_moved_to_the_scaled_rotation(method: str) -> None:
    theta, own_len, student_len, length = 10_000.0, 8, 32, 16
    plain = drawn(B, L, length, D)
    positions = torch.arange(length).expand(B, length)
    keys = rotate(plain[:, None], positions, Rotary.of(rotary_dim=D, theta=theta))[:, 0]
    scaler = MultiTeacherRoPEScaler([(theta, own_len), (theta, student_len)], student_len, method)
    scaled, same = scaler.scale_keys([keys, keys])
    options = {"factor": student_len / own_len}
    if method == "dynamic":
        options = {"factor": 1.0, "original_max_position_embeddings": own_len}
    frequencies = build_scaling(method, **options).inv_freq(D, theta, length)
    for t in range(length):
        for pair in range(D // 2):
            angle = t * frequencies[pair]
            a, b = plain[..., t, pair], plain[..., t, pair + D // 2]
            expected = a * angle.cos() - b * angle.sin()
            torch.testing.assert_close(scaled[..., t, pair], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same, keys)  # a student of the teacher's length
    moved, values = scaler.scale_kv_pairs([keys, keys], [plain, plain])
    assert torch.equal(moved[0], scaled)
    assert all(value is plain for value in values)


def test_dynamic_scaling_reads_the_length_of_the_text() -> None:
    scaler = MultiTeacherRoPEScaler([(10_000.0, 8)], 32, "dynamic")
    keys = [drawn(B, T, D)]
    assert torch.equal(scaler.scale_keys(keys)[0], keys[0])  # a short text is as it was
    assert not torch.equal(scaler.scale_keys(keys, seq_len=20)[0], keys[0])
    there = torch.arange(14, 14 + T).expand(B, T)
    at_the_end = scaler.scale_keys(keys, positions=there)[0]
    assert torch.equal(at_the_end, scaler.scale_keys(keys, seq_len=20, positions=there)[0])


# ------------------------------------------------------------------ bad input

KVS = teachers(2)
ROUTER = LearnableRouter(D, 3)
MAPS = build_multi_teacher_layer_map([2, 2], 2)
LAYERS = [[drawn(B, T, D)] * 2] * 2
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: fuse_kvs_fixed([]), "there are no teachers"),
    (lambda: fuse_kvs_fixed([KVS[0], KVS[0][:, :2]]), r"of shapes \[3, 2, 8\], \[3, 6, 8\] cannot"),
    (lambda: fuse_kvs_fixed(KVS, [1.0]), "1 weights do not fit 2 teachers"),
    (lambda: fuse_kvs_fixed(KVS, [1.0, -1.0]), "must be 0 or more, and not all 0"),
    (lambda: fuse_kvs_fixed(KVS, [float("nan"), 1.0]), "must be 0 or more, and not all 0"),
    (lambda: fuse_kvs_similarity(KVS, drawn(B, D), [drawn(D)]), "1 prototypes do not fit 2"),
    (lambda: fuse_kvs_similarity(KVS, drawn(2, D), [drawn(D)] * 2), r"query must be \[3, D\] or"),
    (lambda: fuse_kvs_similarity(KVS, drawn(B, D), [drawn(4, D)] * 2), "a prototype must be"),
    (lambda: fuse_kvs_similarity(KVS, drawn(B, D), [drawn(D)] * 2, 0.0), "temperature=0.0 must"),
    (lambda: fuse_kvs_similarity(KVS, drawn(B, D), [drawn(D)] * 2, 1.0, "l1"), "'l1' is unknown"),
    (lambda: fuse_kvs_learnable(KVS, drawn(B, D), ROUTER), "shares out 3 teachers, and there are"),
    (lambda: fuse_kvs_learnable(teachers(3), drawn(B, 5), ROUTER), "reads queries of 8 features"),
    (lambda: fuse_kvs_learnable([drawn(T, D)] * 3, drawn(B, D), ROUTER), r"must be \[B, T, D\]"),
    (lambda: LearnableRouter(D, N, "moe"), "router_type='moe' is unknown; choose from mlp"),
    (lambda: LearnableRouter(D, 0), "num_teachers=0"),
    (lambda: EntropyRegularizer("sharp"), "target='sharp' is unknown; choose from diverse"),
    (lambda: EntropyRegularizer("diverse", -1.0), "strength=-1.0 must be"),
    (lambda: compute_teacher_prototype(drawn(T, D)), r"must be \[B, T, D\] or \[L, B, T, D\]"),
    (lambda: compute_teacher_prototype(KVS[0], "median"), "'median' is unknown; choose from mean"),
    (lambda: compute_teacher_prototype(KVS[0], "mean", torch.ones(B, 2)), "attention_mask must be"),
    (lambda: compute_teacher_prototype(KVS[0], "kmeans", None, 0), "num_clusters=0 must be"),
    (lambda: compute_multi_teacher_prototypes(KVS, "mean", [None]), "1 attention_masks do not fit"),
    (lambda: compute_similarity(drawn(D), drawn(5)), "a query of 8 features cannot be compared"),
    (lambda: compute_similarity(drawn(D), drawn(D), "l1"), "choose from cosine, dot, l2"),
    (lambda: compute_routing_weights(drawn(D), []), "there are no prototypes"),
    (lambda: build_multi_teacher_layer_map([4], 2, "best"), "layer_map='best' is unknown"),
    (lambda: build_multi_teacher_layer_map([0], 2), "num_teacher_layers=0 must be"),
    (lambda: merge_multi_teacher_kvs(LAYERS, MAPS[:1]), "1 layer maps do not fit 2 teachers"),
    (lambda: merge_multi_teacher_kvs(LAYERS, MAPS, 5), "the layer map of teacher 0"),
    (lambda: merge_multi_teacher_kvs([[], []], MAPS), "there are no layers"),
    (lambda: fuse_multi_teacher_kv({"a": (KVS[0], KVS[1])}, {"b": 1.0}), "are of b, and the"),
    (lambda: MultiTeacherHeadDimAdapter([], 8, 2), "there are no teachers"),
    (lambda: MultiTeacherHeadDimAdapter([(10, 4)], 8, 2), "teacher 0 has 10 features and 4 heads"),
    (lambda: MultiTeacherHeadDimAdapter([(8, 4)], 9, 2), "the student has 9 features and 2 heads"),
    (lambda: MultiTeacherHeadDimAdapter([(8, 4)], 8, 2)(KVS, KVS), "keys of 2 teachers do not fit"),
    (lambda: MultiTeacherHeadDimAdapter([(4, 2)], 8, 2)(KVS[:1], KVS[:1]), r"\[B, T, 4\] or"),
    (lambda: MultiTeacherRoPEScaler([], 8), "there are no teachers"),
    (lambda: MultiTeacherRoPEScaler([(1e4, 8)], 8, "yarn"), "scaling_method='yarn' is unknown"),
    (lambda: MultiTeacherRoPEScaler([(1e4, 0)], 8), "must be finite and above 0"),
    (lambda: MultiTeacherRoPEScaler([(1e4, 8)], 8).scale_keys(KVS), "keys of 2 teachers do not"),
    (lambda: MultiTeacherRoPEScaler([(1e4, 8)], 8).scale_keys([drawn(D)]), r"must be \[B, .., T"),
]


@pytest.mark.parametrize(("call", "named"), BAD)
def test_what_does_not_fit_is_one_line(call: Callable[[], Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        call()
    assert "\n" not in str(error.value)


def test_all_of_them_are_names_of_the_package() -> None:
    assert {
        *("fuse_kvs_fixed", "fuse_kvs_similarity", "fuse_kvs_learnable", "LearnableRouter"),
        *("EntropyRegularizer", "compute_teacher_prototype", "compute_similarity"),
        *("compute_multi_teacher_prototypes", "compute_routing_weights", "fuse_multi_teacher_kv"),
        *("build_multi_teacher_layer_map", "merge_multi_teacher_kvs"),
        *("MultiTeacherHeadDimAdapter", "MultiTeacherRoPEScaler"),
    } <= {*kava.__all__}
