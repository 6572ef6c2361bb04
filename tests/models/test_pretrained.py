"""Pretrained models of two families: read, proved, paired and taught as any model is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conftest import MODELS
from kava.data.collate import Collator
from kava.data.encode import encode
from kava.data.pairing import encode_for_teacher
from kava.data.records import Record, Template
from kava.eviction import compress
from kava.fit.paired_traces import to_student_tokens
from kava.models.capture import capture
from kava.models.load import load_model, load_tokenizer
from kava.models.probe import probe_cache
from kava.models.rotary import rotary_of
from kava.models.tokenizers import check_tokenizer, reads_alike
from kava.rope import rotate_trace, unrotate_trace
from kava.trace import Segment
from kava.train.build import build_run
from kava.train.config import TrainConfig

pytestmark = [pytest.mark.pretrained, pytest.mark.slow]

NAMES = ("SmolLM2-135M-Instruct", "gemma-3-270m")
RECORD = Record(
    id="clips",
    question="Natalia sold 48 clips in April and half as many in May. How many in all?",
    reasoning="She sold 48 / 2 = 24 clips in May.\nShe sold 48 + 24 = 72 clips in all.",
    answer="72",
)


def there(name: str) -> Path:
    """The folder of a pretrained model; the test is skipped where it is not there."""
    folder = MODELS / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="module", params=NAMES)
def pretrained(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = there(request.param)
    return load_model(folder, dtype="float32"), load_tokenizer(folder)


def test_attention_and_rotation_are_those_of_the_model(
    pretrained: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    model, tokenizer = pretrained
    probe_cache(model, "pretrained")
    check_tokenizer(tokenizer, "pretrained", model.config.vocab_size)
    sample = encode(RECORD, tokenizer, Template(), 256)
    ids = torch.tensor(sample.input_ids[None], dtype=torch.long)
    segments = torch.tensor(sample.segment_ids[None])
    with torch.no_grad():  # a row of every layer's attention is computed again and compared
        _, trace = capture(model, ids, segment_ids=segments, queries=True)
    rotary = rotary_of(model)
    assert rotary is not None
    again = rotate_trace(unrotate_trace(trace, rotary), rotary, trace.positions)
    torch.testing.assert_close(again.keys, trace.keys, rtol=1e-4, atol=1e-3)
    kept, indices_BLHM = compress(trace, "rkv", target_len=6)
    assert kept.length == 6
    assert bool((segments[0][indices_BLHM] == 1).all())


def test_a_bert_encoder_leaves_keys_and_values_at_a_llamas_tokens() -> None:
    encoder = there("all-MiniLM-L6-v2")
    model, tokenizer = load_model(encoder, dtype="float32", encoders=True), load_tokenizer(encoder)
    probe_cache(model, "MiniLM")
    check_tokenizer(tokenizer, "MiniLM", model.config.vocab_size)
    ours = load_tokenizer("kava/tiny-llama")
    encoded = [encode(RECORD, ours, Template(), 256)]
    (paired,), _ = encode_for_teacher([RECORD], encoded, tokenizer, Template(), 256)
    batch = Collator(0, tokenizer.pad_token_id)([paired])
    text = batch["teacher"]
    with torch.no_grad():
        _, trace = capture(model, text["input_ids"], text["attention_mask"], text["segment_ids"])
    assert (trace.num_layers, trace.num_heads, trace.head_dim) == (6, 12, 32)
    at_tokens = to_student_tokens(unrotate_trace(trace, rotary_of(model)), batch, "soft")
    assert at_tokens.length == len(paired.input_ids)
    reasoning = batch["segment_ids"][0] == Segment.REASONING
    assert torch.isfinite(at_tokens.keys[:, :, :, reasoning]).all()
    first = tokenizer.convert_ids_to_tokens(text["input_ids"][0].tolist())[0]
    assert first == "[CLS]"


def test_two_tokenizers_are_paired_token_by_token() -> None:
    ours, theirs = (load_tokenizer(there(name)) for name in NAMES)
    text = Template().render(RECORD).text
    assert not reads_alike(ours, theirs, [text])
    assert reads_alike(ours, load_tokenizer(there(NAMES[0])), [text])
    encoded = [encode(RECORD, ours, Template(), 256)]
    (paired,), _ = encode_for_teacher([RECORD], encoded, theirs, Template(), 256)
    assert paired.teacher is not None
    weights_ST = paired.teacher.alignment.dense("soft")
    assert weights_ST.shape == (len(paired.input_ids), len(paired.teacher.encoded.input_ids))
    torch.testing.assert_close(weights_ST.sum(1), torch.ones(len(weights_ST)))


def test_a_pretrained_student_takes_a_step_of_its_own_cache(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            f'{{"question": "What is {n} + 2 + 3?", "reasoning": "{n} + 2 = {n + 2}\\nIt is '
            f'{n + 5}.", "answer": "{n + 5}"}}\n'
            for n in range(2)
        )
    )
    config = TrainConfig(
        model_name=str(there(NAMES[0])),
        dataset_name=str(rows),
        target_len=2,
        batch_size=1,
        max_steps=1,
        max_length=128,
        save_only_model=True,
        no_progress=True,
        device="cpu",
        output_dir=str(tmp_path / "run"),
    )
    run = build_run(config)
    before = run.trainer.model.student.base.model.layers[0].self_attn.k_proj.weight.clone()
    run.trainer.train()
    after = run.trainer.model.student.base.model.layers[0].self_attn.k_proj.weight
    assert not torch.equal(before, after)
    assert (tmp_path / "run/checkpoint-1/model.safetensors").is_file()
