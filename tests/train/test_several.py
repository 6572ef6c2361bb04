"""Several teachers: fused targets, routed passes, routers, and what a run does with them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import metrics, run, small, weights

from kava.losses import TrainingProgress
from kava.names import FUSION_NAMES
from kava.train.build import Run, build_run
from kava.train.config import TrainConfig
from kava.train.items import count_items
from kava.train.loss_line import formula, log_line, loss_weights

GPT2, LLAMA = "kava/shell-gpt2-teacher", "kava/shell-teacher"
SEVERAL: dict[str, Any] = {
    "model_name": LLAMA,
    "teachers": [GPT2, LLAMA],
    "kv_method": "full",
    "alignment_mode": "structured",
    "calibration_samples": 64,
    "dataset_name": "kava/shell-game?num_train=160",
    "text_ce_weight": 0.0,
    "max_steps": 2,
}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Data that name a teacher for each sample, the two by turns; of different lengths."""
    path = tmp_path_factory.mktemp("data") / "named.jsonl"
    rows = []
    for place in range(64):
        steps = [f"{place} + {n} = {place + n}" for n in range(1, 3 + place % 4)]
        row = {"question": f"{place} and some?", "reasoning": "\n".join(steps), "answer": "7"}
        rows.append(json.dumps({**row, "teacher_id": ("gpt2", "llama")[place % 2]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


TINY: dict[str, Any] = {
    "model_name": "kava/tiny-qwen2",
    "teachers": ["gpt2=kava/tiny-gpt2", "llama=kava/tiny-llama"],
    "max_length": 128,
    "kv_method": "rkv",
}
NAMED = {**TINY, "fusion": "oracle"}


def several(output_dir: Path | str = "unused", **changes: Any) -> TrainConfig:
    return small(output_dir, **{**SEVERAL, **changes})


def built(output_dir: Path, **changes: Any) -> Run:
    return build_run(several(output_dir, **changes))


def batch_of(one: Run, size: int = 8) -> Any:
    return one.trainer.data_collator(one.data.train[:size])


def rows_read(one: Run) -> dict[int, list[int]]:
    """The number of samples of each forward of each teacher, from now on."""
    seen: dict[int, list[int]] = defaultdict(list)
    for n, teacher in enumerate(one.trainer.model.readers):
        teacher.register_forward_pre_hook(
            lambda _, args, kwargs, n=n: seen[n].append(
                len(args[0] if args else kwargs["input_ids"])
            ),
            with_kwargs=True,
        )
    return seen


def gradients(one: Run) -> dict[str, torch.Tensor]:
    return {
        name: part.grad.clone()
        for name, part in one.trainer.model.named_parameters()
        if part.grad is not None
    }


@pytest.mark.parametrize("alone", [0, 1])
@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_one_hot_weights_are_the_run_of_one_teacher_bit_for_bit(
    tmp_path: Path, alone: int, student: str
) -> None:
    name = SEVERAL["teachers"][alone]
    hot = [float(n == alone) for n in range(2)]
    shared = {"student": student, "eval_size": 8, "eval_steps": 2, "alignment_mode": "structured"}
    of_one = several(tmp_path / "one", teachers=None, teacher_name=name, **shared)
    expected = run(of_one)
    found = run(several(tmp_path / "two", fixed_weights=hot, **shared))
    ours, theirs = weights(found.trainer.model.student), weights(expected.trainer.model.student)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for one, other in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two")):
        assert one["loss"] == other["loss"]
        assert one["kv"] == other["kv"]


@pytest.mark.parametrize(
    "fusion", ["fixed", "similarity", "learnable", "confidence", "min_ce", "avg_ce"]
)
def test_copies_of_one_teacher_are_one_teacher(tmp_path: Path, fusion: str) -> None:
    copies = [f"{letter}={GPT2}" for letter in "abc"]
    one = built(tmp_path / "one", teachers=None, teacher_name=GPT2)
    three = built(tmp_path / "three", teachers=copies, fusion=fusion)
    seen = rows_read(three)
    assert len({id(model) for model in three.trainer.model.readers}) == 1
    losses = [x.trainer.model.eval()(batch_of(x)) for x in (one, three)]
    assert float(losses[0].metrics["kv"]) == pytest.approx(float(losses[1].metrics["kv"]), abs=1e-6)
    # the three hooks are on one model, which reads the batch once
    assert seen == {0: [8], 1: [8], 2: [8]}


@pytest.mark.parametrize("fusion", FUSION_NAMES.shipped)
def test_every_fusion_trains_the_student_and_no_teacher(
    tmp_path: Path, fusion: str, named: str
) -> None:
    changes = {**NAMED, "dataset_name": named} if fusion == "oracle" else {"fusion": fusion}
    one = built(tmp_path, eval_size=16, eval_steps=2, **changes)
    model = one.trainer.model
    before = weights(model)
    theirs = [weights(teacher) for teacher in model.readers]
    one.trainer.train()
    moved = {n.split(".")[0] for n, p in weights(model).items() if not torch.equal(before[n], p)}
    assert moved == {"student"} | ({"router"} if fusion == "learnable" else set())
    for teacher, earlier in zip(model.readers, theirs):
        assert all(torch.equal(part, earlier[n]) for n, part in weights(teacher).items())
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if "eval_kv" in row)
    shares = [last[f"eval_route_{label}"] for label in model.labels]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    (first, *_) = (row for row in rows if "route_gpt2" in row or f"route_{model.labels[0]}" in row)
    assert sum(first[f"route_{label}"] for label in model.labels) == pytest.approx(1.0, abs=1e-5)
    assert "teachers_cos_layer_0" in str(last) or fusion == "union"


@pytest.mark.parametrize("learning", ["gradient", "likelihood", "policy"])
def test_each_way_of_learning_moves_the_router_alone_or_with_the_kv_loss(
    tmp_path: Path, learning: str
) -> None:
    """The router's own term sends no gradient into the student."""
    options = {"fusion": "learnable", "router_learning": learning, "ce_weight": 0.0}
    one = built(tmp_path, **options)
    model = one.trainer.model.train()
    torch.manual_seed(0)
    forward = model(batch_of(one))
    term = {"likelihood": "route_likelihood", "policy": "route_policy"}.get(learning, "kv")
    assert term in forward.weighted
    forward.weighted[term].backward()
    moved = {name.split(".")[0] for name, part in gradients(one).items() if part.abs().sum() > 0}
    assert moved == ({"student", "router"} if term == "kv" else {"router"})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"fusion": "fixed"}, "CE + KV"),
        ({"router_learning": "gradient"}, "CE + KV"),
        ({"router_learning": "likelihood"}, "CE + KV + routeLikelihood"),
        ({"router_learning": "likelihood", "router_weight": 0.0}, "CE + KV"),
        (
            {"router_learning": "policy", "router_weight": 0.5, "entropy_reg_strength": 0.01},
            "CE + KV + 0.5·routePolicy + 0.01·routeEntropy",
        ),
        (
            {"router_learning": "gradient", "entropy_reg_strength": 1.0, "balance_weight": 2.0},
            "CE + KV + routeEntropy + 2·routeBalance",
        ),
    ],
)
def test_the_formula_names_the_terms_of_the_router(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    one = built(tmp_path, **{"fusion": "learnable", **changes})
    assert formula(one.trainer.config) == line
    found = one.trainer.model.train()(batch_of(one))
    assert found.weighted.keys() == loss_weights(one.trainer.config).keys()
    logs = {name: float(found.metrics[name]) for name in found.weighted}
    shown = log_line(1, {"loss": 1.0, **logs}, "structured")
    terms = [term.split("·")[-1] for term in line.split(" + ")]
    assert re.findall(r"(\w+)=", shown) == ["loss", *terms[:2], "CODI", *terms[2:]]


def test_likelihood_goes_towards_the_teacher_whose_target_gives_the_answer(tmp_path: Path) -> None:
    """Oracle: the slope by the weights is that of a small change in them."""
    one = built(tmp_path, fusion="learnable", router_learning="likelihood", router_type="gate")
    model, batch = one.trainer.model.eval(), batch_of(one)
    model(batch).weighted["route_likelihood"].backward()
    bias = model.router.routers[0].layers[-1].bias
    slope, size = bias.grad.clone(), 1e-2

    def loss(shift: float) -> float:
        with torch.no_grad():
            bias[0] += shift
            found = float(model(batch).metrics["route_likelihood"])
            bias[0] -= shift
        return found

    measured = (loss(size) - loss(-size)) / (2 * size)
    assert measured == pytest.approx(float(slope[0]), rel=0.02, abs=1e-3)


def test_a_routed_teacher_reads_its_own_samples_alone(tmp_path: Path, named: str) -> None:
    one = built(tmp_path, dataset_name=named, **NAMED)
    seen = rows_read(one)
    batch = batch_of(one)
    routed = one.trainer.model.train()(batch)
    assert seen == {0: [4], 1: [4]}
    # the fused target is what all teachers' targets would have given
    whole = one.trainer.model(batch, diagnose=True)
    assert seen == {0: [4, 8], 1: [4, 8]}
    mask = routed.target.trace.valid_BT()
    assert mask.all()
    torch.testing.assert_close(routed.target.trace.keys, whole.target.trace.keys)
    torch.testing.assert_close(routed.target.trace.values, whole.target.trace.values)
    assert routed.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)


def test_a_policy_asks_the_drawn_teacher_alone(tmp_path: Path) -> None:
    one = built(tmp_path, fusion="learnable", router_learning="policy")
    seen = rows_read(one)
    torch.manual_seed(0)
    one.trainer.model.train()(batch_of(one))
    assert sum(map(sum, seen.values())) == 8
    assert float(one.trainer.model.reward_baseline[1]) == 1


def test_teachers_take_turns(tmp_path: Path) -> None:
    one = built(tmp_path, teacher_order="in_turn")
    model = one.trainer.model.train()
    seen = rows_read(one)
    for step in range(4):
        model.progress = TrainingProgress(step, 4)
        told = model(batch_of(one)).metrics
        shares = [float(told[f"route_{label}"]) for label in model.labels]
        assert shares == [float(step % 2 == 0), float(step % 2 == 1)]
    assert seen == {0: [8, 8], 1: [8, 8]}


@pytest.mark.parametrize("fusion", ["fixed", "confidence", "learnable"])
@pytest.mark.parametrize("size", [1, 4])
def test_gradients_do_not_depend_on_the_batchs_split(
    tmp_path: Path, fusion: str, size: int
) -> None:
    options = {"fusion": fusion, "router_learning": "likelihood"}
    whole, parts = (built(tmp_path / name, **options) for name in ("whole", "parts"))
    batch = batch_of(whole)
    counts = torch.tensor(count_items(batch, whole.trainer.config)).float()
    whole.trainer.model.eval()(batch).loss.backward()
    model = parts.trainer.model.eval()
    for start in range(0, 8, size):
        chunk = parts.trainer.data_collator(parts.data.train[start : start + size])
        model(chunk, counts).loss.backward()
    expected, found = gradients(whole), gradients(parts)
    assert expected.keys() == found.keys()
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, atol=2e-5, rtol=1e-3)


def test_a_sample_that_one_teacher_cannot_read_is_taught_by_the_others(
    tmp_path: Path, named: str
) -> None:
    long = "Please answer at your leisure: {question}\n"
    options = {**TINY, "dataset_name": named, "teacher_prompts": [long, "{question}\n"]}
    options |= {"max_length": 92, "calibration_samples": 40}
    one = built(tmp_path / "a", overflow="skip", **options)
    sides = [sample.sides for sample in one.data.train]
    assert all(llama.present for _, llama in sides)
    lost = [index for index, (gpt2, _) in enumerate(sides) if not gpt2.present]
    assert 0 < len(lost) < len(sides)
    weights = [0.0, 1.0]
    other = built(tmp_path / "b", overflow="skip", fixed_weights=weights, **options)
    batch = one.trainer.data_collator([one.data.train[index] for index in lost[:4]])
    mixed = one.trainer.data_collator(one.data.train[:8])
    for x in (one, other):
        x.trainer.model.eval()
    found, expected = (x.trainer.model(batch).target.trace for x in (one, other))
    assert torch.equal(found.keys, expected.keys)
    assert torch.equal(found.valid_BT(), expected.valid_BT())
    found, expected = (x.trainer.model(mixed).target.trace for x in (one, other))
    same = [torch.equal(a, b) for a, b in zip(found.keys, expected.keys)]
    assert same == [not gpt2.present for gpt2, _ in sides[:8]]
    with pytest.raises(ValueError, match=r"teacher gpt2: .* more than --max_length 92"):
        built(tmp_path / "c", **options)


def test_a_batch_that_its_teacher_cannot_read_has_nothing_to_match(
    tmp_path: Path, named: str
) -> None:
    """One teacher alone is asked for, and reads no sample of this batch."""
    long = "Please answer at your leisure: {question}\n"
    options = {**TINY, "dataset_name": named, "teacher_prompts": [long, "{question}\n"]}
    options |= {"max_length": 92, "calibration_samples": 40, "fixed_weights": [1.0, 0.0]}
    one = built(tmp_path, overflow="skip", **options)
    lost = [sample for sample in one.data.train if not sample.sides[0].present]
    forward = one.trainer.model.train()(one.trainer.data_collator(lost[:4]))
    assert float(forward.metrics["kv"]) == 0.0
    assert torch.isfinite(forward.loss)


def test_data_that_name_teachers_tell_how_often_a_router_is_right(
    tmp_path: Path, named: str
) -> None:
    one = built(tmp_path, dataset_name=named, **{**NAMED, "fusion": "confidence"})
    routing = one.trainer.model.eval()(batch_of(one), diagnose=True).routing
    assert routing.chosen_B.tolist() == [0, 1] * 4


def test_one_model_under_two_prompts_is_two_teachers(tmp_path: Path) -> None:
    prompts = ["{question}\n", "moves {question}\n"]
    copies = [f"plain={LLAMA}", f"other={LLAMA}"]
    one = built(tmp_path, teachers=copies, teacher_prompts=prompts, fixed_weights=[0.7, 0.3])
    seen = rows_read(one)
    batch = batch_of(one)
    forward = one.trainer.model.eval()(batch)
    assert torch.isfinite(forward.loss)
    assert sum(map(len, seen.values())) == 4  # two hooks on one model, two passes
    own, other = batch["sides"]
    assert own is None or own["input_ids"].shape != other["input_ids"].shape
    # behind the prompts the tokens are the same ones, shifted by the longer prompt
    reasoning = batch["segment_ids"] == 1
    shift = other["last"][reasoning] - reasoning.nonzero()[:, 1]
    assert (shift == shift[0]).all()
    assert shift[0] == 1


def test_resume_goes_on_exactly_with_a_router(tmp_path: Path) -> None:
    options = {"fusion": "learnable", "router_learning": "policy", "max_steps": 4}
    whole = run(several(tmp_path / "whole", **options))
    run(several(tmp_path / "parts", **{**options, "save_steps": 2}))
    for folder in (tmp_path / "parts").glob("checkpoint-4"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    parts = run(several(tmp_path / "parts", resume=True, **{**options, "save_steps": 2}))
    ours, theirs = weights(parts.trainer.model), weights(whole.trainer.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("fusion", ["confidence", "min_ce", "avg_ce"])
def test_the_wrong_samples_weights_do_not_depend_on_the_batch(tmp_path: Path, fusion: str) -> None:
    one = built(tmp_path, fusion=fusion, wrong_sample=True, eval_size=8)
    model, data = one.trainer.model.eval(), one.trainer.train_dataset
    collate = replace(one.trainer.data_collator, neighbours=True)
    whole = model(collate(data[:6])).target.trace.values
    parts = [model(collate(data[at : at + 2])).target.trace.values for at in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["fixed", "confidence", "learnable"])
def test_the_wrong_sample_gives_everything(tmp_path: Path, fusion: str) -> None:
    one = built(tmp_path / "own", fusion=fusion)
    other = built(tmp_path / "wrong", fusion=fusion, wrong_sample=True)
    batch = batch_of(one)
    own, wrong = (x.trainer.model.eval()(batch).target.trace for x in (one, other))
    if fusion == "learnable":  # its router reads the sample's own question
        assert not torch.allclose(own.keys, wrong.keys)
        return
    torch.testing.assert_close(wrong.values, own.values.roll(1, 0), atol=1e-5, rtol=1e-4)


def test_the_temperature_moves_linearly(tmp_path: Path) -> None:
    one = built(tmp_path, fusion="confidence", fusion_temperature=2.0, fusion_temperature_end=1.0)
    model = one.trainer.model
    for step, expected in ((0, 2.0), (5, 1.5), (10, 1.0)):
        model.progress = TrainingProgress(step, 10)
        assert model._fusion().temperature == pytest.approx(expected)


def test_a_text_beyond_one_teachers_positions_is_left_to_the_others(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from kava.models.load import load_tokenizer

    short = tmp_path / "short"
    tokenizer = load_tokenizer("kava/tiny-gpt2")
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=48, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(short)
    tokenizer.save_pretrained(short)
    rows = [
        {"question": "2 and 3?", "reasoning": "2\n" + "3\n" * n + "5", "answer": "5", "id": str(n)}
        for n in (3, 3, 3, 3, 40, 40)
    ]
    data = tmp_path / "rows.jsonl"
    lines = [json.dumps({**row, "id": str(place)}) for place, row in enumerate(rows)]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {**TINY, "teachers": [f"short={short}", "llama=kava/tiny-llama"]}
    options |= {"dataset_name": str(data), "aligner_fit": "frozen", "max_length": 256}
    one = built(tmp_path / "run", overflow="skip", **options)
    present = [tuple(side.present for side in sample.sides) for sample in one.data.train]
    assert present == [(True, True)] * 4 + [(False, True)] * 2
    assert torch.isfinite(one.trainer.model(batch_of(one, 6)).loss)
    with pytest.raises(ValueError, match="more than the 48 positions"):
        built(tmp_path / "other", **options)


def test_the_wrong_sample_of_a_first_sample_is_read_in_the_teachers_own_tokens(
    tmp_path: Path,
) -> None:
    """A batch that brings the sample before its first along, as evaluations do."""
    data = {"dataset_name": "kava/shell-game?num_train=160", "kv_method": "positions"}
    own = built(tmp_path / "own", fixed_weights=[1.0, 0.0], **data)
    wrong = built(tmp_path / "wrong", fixed_weights=[1.0, 0.0], wrong_sample=True, **data)
    collate = replace(wrong.trainer.data_collator, neighbours=True)
    samples = wrong.trainer.train_dataset[5:9]
    first = own.trainer.data_collator([*own.data.train[4:9]])
    expected = own.trainer.model.eval()(first).target.trace.values[:4]
    found = wrong.trainer.model.eval()(collate(samples)).target.trace.values
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
