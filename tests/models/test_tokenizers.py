"""Two tokenizers are the same where they give the same ids on text, whatever their vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from kava.commands.reading import ReadingConfig, read_texts
from kava.models.load import load_model
from kava.models.tokenizers import byte_tokenizer, check_tokenizer, reads_alike
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.models import build_teacher_tokenizer, build_tokenizer

TEXTS = ["Tom has 3 zebras.\n", "3 + 4 = 7"]


def changed(change: Callable[[Tokenizer], None], **special: Any) -> PreTrainedTokenizerFast:
    """The byte tokenizer with one thing changed, and the vocabulary as it is."""
    plain = byte_tokenizer()
    backend = plain.backend_tokenizer
    change(backend)
    tokens = {"eos_token": plain.eos_token, "pad_token": plain.pad_token, **special}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **tokens
    )


def begin_mark(backend: Tokenizer) -> None:
    mark = ("<|endoftext|>", backend.token_to_id("<|endoftext|>"))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{mark[0]} $A", special_tokens=[mark]
    )


def normalised(normalizer: Any) -> Callable[[Tokenizer], None]:
    def change(backend: Tokenizer) -> None:
        backend.normalizer = normalizer

    return change


def prefix_space(backend: Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)


def nothing(backend: Tokenizer) -> None:
    pass


DIFFERENT: dict[str, tuple[Callable[[Tokenizer], None], dict[str, str]]] = {
    "begin mark": (begin_mark, {}),
    "lower case": (normalised(normalizers.Lowercase()), {}),
    "nfkc": (normalised(normalizers.NFKC()), {}),
    "stripped": (normalised(normalizers.Strip()), {}),
    "prefix space": (prefix_space, {}),
    "other end token": (nothing, {"eos_token": "<|pad|>"}),
    "a word of the data": (normalised(normalizers.Replace("zebra", "horse")), {}),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_an_equal_vocabulary_does_not_make_tokenizers_alike(name: str) -> None:
    ours, (change, special) = byte_tokenizer(), DIFFERENT[name]
    theirs = changed(change, **special)
    assert theirs.get_vocab() == ours.get_vocab()
    assert not reads_alike(ours, theirs, TEXTS)
    assert not reads_alike(theirs, ours, TEXTS)


def merged(merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    vocab = {text: index for index, text in enumerate(["a", "b", "c", "ab", "bc", "<e>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<e>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")


def test_other_merges_give_other_ids() -> None:
    ours, theirs = merged([("a", "b"), ("b", "c")]), merged([("b", "c"), ("a", "b")])
    assert theirs.get_vocab() == ours.get_vocab()
    assert not reads_alike(ours, theirs, ["abc"])
    assert reads_alike(ours, theirs, ["cab"])  # no text asks for the order


def test_tokenizers_in_one_state_are_alike_without_reading_the_data() -> None:
    def unread() -> Iterator[str]:
        raise AssertionError("the texts were read")
        yield ""

    ours, theirs = byte_tokenizer(), byte_tokenizer()
    theirs(["left", "over"], padding=True, truncation=True, max_length=3)
    assert reads_alike(ours, theirs, unread())
    assert reads_alike(ours, ours, unread())


def test_what_no_text_shows_makes_no_difference() -> None:
    other_pad = changed(nothing, pad_token="<|endoftext|>")
    assert reads_alike(byte_tokenizer(), other_pad, TEXTS)
    never = changed(normalised(normalizers.Replace("unicorn", "horse")))
    assert reads_alike(byte_tokenizer(), never, TEXTS)


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[[str], str]:
    """A folder with kava/tiny-llama, and a tokenizer of the same vocabulary."""

    def save(name: str) -> str:
        change, special = DIFFERENT.get(name, (nothing, {}))
        folder = tmp_path / name.replace(" ", "-")
        load_model("kava/tiny-llama").save_pretrained(folder)
        changed(change, **special).save_pretrained(folder)
        return str(folder)

    return save


@pytest.mark.parametrize("name", ["begin mark", "lower case", "a word of the data", "the same"])
def test_a_teacher_reads_its_own_ids_wherever_they_are_others(
    name: str, teacher: Callable[[str], str], tmp_path: Path
) -> None:
    rows = [{"question": f"Has Tom {n} zebras?", "reasoning": f"{n} + 1 = {n + 1}, yes he does",
             "answer": "yes"} for n in range(8)]  # fmt: skip
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = teacher(name)
    config = TrainConfig(
        model_name="kava/tiny-llama", teacher_name=folder, dataset_name=str(data), target_len=2,
        device="cpu", output_dir=str(tmp_path / "run"), batch_size=4, max_steps=1,
        keep_last_step=True, no_progress=True,
    )  # fmt: skip
    tokenizer = build_tokenizer(config)
    samples = load_data(config, tokenizer, build_teacher_tokenizer(config, tokenizer)).train
    reading = ReadingConfig(dataset_name=str(data), keep_last_step=True)
    texts = read_texts(reading, "kava/tiny-llama", folder, 8, "num_samples", usual=8)
    for sample in (*samples, *texts.samples):
        assert (sample.teacher is None) == (name == "the same")
        if sample.teacher is not None:
            text = tokenizer.decode(sample.input_ids[:-1])
            (own,) = build_teacher_tokenizer(config, tokenizer)([text])["input_ids"]  # type: ignore[misc]
            assert list(sample.teacher.encoded.input_ids[:-1]) == own
    build_run(config).trainer.train()


def test_a_teacher_of_the_same_name_is_loaded_once() -> None:
    config = TrainConfig(model_name="kava/tiny-llama", teacher_name="kava/tiny-llama")
    tokenizer = build_tokenizer(config)
    assert build_teacher_tokenizer(config, tokenizer) is tokenizer


def test_a_special_token_that_writes_nothing_may_lie_beyond_the_embeddings() -> None:
    tokenizer = byte_tokenizer()
    check_tokenizer(tokenizer, "x", 258)
    tokenizer.add_tokens(["<image>"])
    check_tokenizer(tokenizer, "x", 258)  # as Gemma 3's, which is one longer than its table
    for role in ("pad", "bos", "eos", "unk"):
        tokenizer = byte_tokenizer()
        tokenizer.add_special_tokens({f"{role}_token": "<new>"})
        with pytest.raises(ValueError, match=f"has the {role} token '<new>' with id 258, but"):
            check_tokenizer(tokenizer, "x", 258)
