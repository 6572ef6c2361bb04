"""`generate` with the arguments and the result of transformers gives the student's own tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from test_decode import NEW, STUDENTS, ragged, talkative, wrap
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TextIteratorStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
    pipeline,
)

from kava.commands.evaluate import main as evaluate_main
from kava.data.encode import encode_prompt
from kava.data.records import Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE
from kava.data.sources import load_records
from kava.models.load import load_model, load_tokenizer
from kava.student.checkpoint import save_student
from kava.student.generate import left_aligned
from kava.student.latent import LatentStudent
from kava.student.ready import PROBES, chat_template

GAME = "kava/shell-game?num_test=12&num_moves=3"


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def student() -> LatentStudent:
    return wrap(talkative("llama"), "sequential")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = LatentStudent.wrap(load_model("kava/shell-teacher"), num_latents=2)
    folder = tmp_path_factory.mktemp("saved")
    settings = {"template": asdict(SHELL_GAME_TEMPLATE), "config": {"max_new_tokens": 4}}
    save_student(folder, model, load_tokenizer("kava/shell-teacher"), settings)
    return folder


def right_padded() -> tuple[Tensor, Tensor]:
    ids, mask = (part.flip(1) for part in ragged())
    lengths = mask.sum(1)
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = ids[row, :length].flip(0)
    return ids, mask


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_answered_as_they_are_alone(family: str, name: str, side: str) -> None:
    student = wrap(talkative(family), name)
    ids, mask = ragged() if side == "left" else right_padded()
    found = student.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=NEW, eos_token_id=None
    )
    assert found.shape == (len(ids), ids.shape[1] + NEW)
    assert torch.equal(found[:, : ids.shape[1]], ids)
    for row, prompt, valid in zip(found, ids, mask):
        alone = student.answer(prompt[valid.bool()][None], max_new_tokens=NEW)
        assert torch.equal(row[ids.shape[1] :], alone.tokens[0])


def test_padding_moves_to_the_left_in_order() -> None:
    ids, mask = torch.tensor([[5, 0, 6, 7]]), torch.tensor([[1, 0, 1, 0]])
    assert [part.tolist() for part in left_aligned(ids, mask)] == [[[0, 7, 5, 6]], [[0, 0, 1, 1]]]


def test_without_a_mask_padding_is_masked_unless_it_ends_texts(student: LatentStudent) -> None:
    ids, mask = right_padded()
    expected = student.generate(ids, attention_mask=mask, max_new_tokens=NEW, eos_token_id=None)
    found = student.generate(ids, pad_token_id=0, max_new_tokens=NEW, eos_token_id=None)
    assert torch.equal(found, expected)
    read = student.generate(ids, pad_token_id=0, eos_token_id=0, max_new_tokens=1)
    whole = student.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1)
    assert torch.equal(read, whole)


def test_behind_its_end_a_row_is_padded(student: LatentStudent) -> None:
    ids, mask = ragged()
    plain = student.answer(ids, mask, max_new_tokens=NEW).tokens
    ends = next(
        token
        for token in plain.unique().tolist()
        if (plain[:, :-1] == token).any(1).any() and not (plain[:, :-1] == token).any(1).all()
    )
    found = student.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, eos_token_id=[ends, 10**6], pad_token_id=77
    )[:, ids.shape[1] :]
    for row, free in zip(found.tolist(), plain.tolist()):
        length = free.index(ends) + 1 if ends in free else NEW
        assert row == free[:length] + [77] * (NEW - length)


def test_sampling_is_that_of_transformers_warpers(student: LatentStudent) -> None:
    """Against a loop over the training forward, with the same random numbers."""
    ids, mask = ragged()
    torch.manual_seed(5)
    found = student.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, eos_token_id=None,
        do_sample=True, temperature=1.7, top_k=9, top_p=0.8,
    )  # fmt: skip
    warpers = [TemperatureLogitsWarper(1.7), TopKLogitsWarper(9), TopPLogitsWarper(0.8)]
    torch.manual_seed(5)
    answers = ids.new_zeros(len(ids), 1)
    for _ in range(NEW):
        with torch.no_grad():
            scores = student(ids, mask, answers).logits[:, -1].float()
        for warp in warpers:
            scores = warp(ids, scores)
        token = torch.multinomial(scores.softmax(-1), 1)
        answers = torch.cat([answers[:, :-1], token, token], dim=1)
    assert torch.equal(found[:, ids.shape[1] :], answers[:, :NEW])
    greedy = student.answer(ids, mask, max_new_tokens=NEW).tokens
    assert not torch.equal(found[:, ids.shape[1] :], greedy)


def test_several_answers_to_a_prompt_stand_together(student: LatentStudent) -> None:
    ids, mask = ragged()
    torch.manual_seed(0)
    found = student.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, do_sample=True, num_return_sequences=3
    )
    assert torch.equal(found[:, : ids.shape[1]], ids.repeat_interleave(3, dim=0))
    assert len({tuple(row) for row in found[:3].tolist()}) > 1


def test_the_callers_processors_criteria_and_streamer_are_used(student: LatentStudent) -> None:
    ids = ragged()[0][:1, -4:]
    first = int(student.answer(ids, max_new_tokens=1).tokens)
    ban = LogitsProcessorList([SuppressTokensLogitsProcessor([first])])
    assert int(student.generate(ids, max_new_tokens=1, logits_processor=ban)[0, -1]) != first
    seen: list[int] = []

    def at_six(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        seen.append(input_ids.shape[1])
        return torch.full((len(input_ids),), input_ids.shape[1] >= 6)

    found = student.generate(ids, max_new_tokens=NEW, eos_token_id=None, stopping_criteria=[at_six])
    assert (found.shape[1], seen) == (6, [5, 6])
    config = GenerationConfig(max_new_tokens=2, do_sample=False, eos_token_id=None)
    assert student.generate(ids, config).shape[1] == 6
    assert student.generate(ids, max_length=6, eos_token_id=None).shape[1] == 6


def test_words_are_streamed_and_strings_stop() -> None:
    torch.manual_seed(0)
    student = LatentStudent.wrap(load_model("kava/tiny-gpt2"), num_latents=2)
    tokenizer = load_tokenizer("kava/tiny-gpt2")
    letters = {tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefgh"}
    others = [token for token in range(len(tokenizer)) if token not in letters]
    options: dict[str, Any] = {
        "suppress_tokens": others,
        "max_new_tokens": 4,
        "do_sample": True,
        "top_k": 0,
        "temperature": 9.0,
    }
    batch = tokenizer("How many?\n", return_tensors="pt")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    torch.manual_seed(1)
    whole = student.generate(**batch, **options, streamer=streamer)
    text = tokenizer.decode(whole[0, batch["input_ids"].shape[1] :])
    assert "".join(streamer) == text
    stop = text[1:3]
    torch.manual_seed(1)
    stopped = student.generate(**batch, **options, stop_strings=[stop], tokenizer=tokenizer)
    assert stopped.shape[1] == whole.shape[1] - 1
    assert tokenizer.decode(stopped[0]).endswith(stop)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 4}, "num_beams=4 is not for a latent student"),
    "in a configuration": (
        {"generation_config": GenerationConfig(num_beams=2)},
        "num_beams=2 is not for a latent student",
    ),
    "scores": ({"return_dict_in_generate": True}, "return_dict_in_generate=True is not"),
    "embeddings": ({"inputs_embeds": torch.zeros(1, 2, 3)}, "inputs_embeds=… is not"),
    "unknown": ({"max_tokens": 3}, r"not used by the model: \['max_tokens'\]"),
    "short": ({"max_length": 4}, "max_length=4 leaves no room behind prompts of 9 columns"),
    "long": ({"max_new_tokens": 10**6}, "1,000,000 does not fit the 128 positions of"),
    "none": ({"max_new_tokens": 0}, "must be greater than 0, but is 0"),
    "other mask": ({"attention_mask": torch.ones(1, 2)}, r"attention_mask \[1, 2\] must be as"),
    "empty": ({"attention_mask": torch.zeros(4, 9)}, "attention_mask leaves nothing of prompt 0"),
    "twice": ({"inputs": torch.ones(1, 2).long()}, "give the ids of the prompts once"),
    "no tokenizer": ({"stop_strings": ["a"]}, "stop_strings are compared with text"),
    "a mask by its place": ({"generation_config": ragged()[1]}, "pass the mask of the prompts by"),
    "one prompt": ({"input_ids": torch.ones(3).long()}, r"a tensor \[B, P\] of prompts, got \[3\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_done_is_refused_in_one_line(student: LatentStudent, case: str) -> None:
    ids, mask = ragged()
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        student.generate(**{"input_ids": ids, "attention_mask": mask, **options})
    assert "\n" not in str(caught.value)


def asked(tokenizer: Any, records: list[Any]) -> dict[str, Tensor]:
    chats = [[{"role": "user", "content": record.question}] for record in records]
    return tokenizer.apply_chat_template(  # type: ignore[no-any-return]
        chats, return_tensors="pt", return_dict=True, padding=True
    )


FRESH = """
import json, sys
{imports}
folder, texts = sys.argv[1], []
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
chats = [[{{"role": "user", "content": question}}] for question in json.load(sys.stdin)]
for side, size in (("left", 5), ("right", 12)):
    tokenizer.padding_side = side
    for first in range(0, len(chats), size):
        batch = tokenizer.apply_chat_template(
            chats[first : first + size], return_tensors="pt", return_dict=True, padding=True
        )
        ids = model.generate(**batch)[:, batch["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
print(json.dumps([type(model).__name__, texts, "kava.train" in sys.modules]))
"""
ORDERS = [
    "import kava\nfrom transformers import AutoModelForCausalLM, AutoTokenizer",
    "from transformers import AutoModelForCausalLM, AutoTokenizer\nimport kava",
]


@pytest.mark.slow
@pytest.mark.parametrize("imports", ORDERS)
def test_a_fresh_process_answers_as_the_commands_do(
    imports: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = load_records(GAME, split="test")
    questions = [record.question for record in records]
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(imports=imports), str(saved)],
        input=json.dumps(questions), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kind, texts, trains = json.loads(done.stdout)
    assert (kind, trains) == ("LatentStudent", False)
    items = tmp_path / "items.jsonl"
    argv = [str(saved), "--dataset_name", GAME, "--output", str(items), "--device", "cpu"]
    assert evaluate_main(argv) == 0
    evaluated = [json.loads(line)["text"] for line in items.read_text().splitlines()]
    assert texts == evaluated + evaluated
    assert len(set(evaluated)) > 1
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance

    from kava.evaluate.harness_model import KavaLM

    requests = [
        Instance("generate_until", {}, (question, {"max_gen_toks": 4}), index)
        for index, question in enumerate(questions)
    ]
    assert KavaLM(str(saved)).generate_until(requests, disable_tqdm=True) == evaluated


def test_a_pipeline_answers_greedily_as_long_as_the_run_did(saved: Path) -> None:
    assert type(AutoConfig.from_pretrained(saved)).__name__ == "LatentStudentConfig"
    model = AutoModelForCausalLM.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    records = load_records(GAME, split="test")[:3]
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    chats = [[{"role": "user", "content": record.question}] for record in records]
    said = [answer[0]["generated_text"][-1]["content"] for answer in pipe(chats)]
    ids = model.generate(**asked(tokenizer, records), max_new_tokens=4)
    new = ids[:, -4:]
    assert said == tokenizer.batch_decode(new, skip_special_tokens=True)


def test_a_checkpoint_without_a_generation_configuration_ends_as_its_base_does(
    saved: Path, tmp_path: Path
) -> None:
    model = LatentStudent.from_pretrained(saved)
    config = model.generation_config
    tokenizer = load_tokenizer("kava/shell-teacher")
    assert config.eos_token_id == tokenizer.eos_token_id
    assert (config.pad_token_id, config.max_new_tokens) == (tokenizer.pad_token_id, 4)
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    config = LatentStudent.from_pretrained(tmp_path).generation_config
    assert (config.eos_token_id, config.max_new_tokens) == (tokenizer.eos_token_id, 32)
    assert config.do_sample is False


TEMPLATES = [
    Template(),
    Template(question='Say "why" \\ {question}\n\nAnswer, ½ 🙂:\n'),
    Template(question="<|endoftext|>user: {question}<|endoftext|>\n"),
]


@pytest.mark.parametrize("template", TEMPLATES, ids=["usual", "quotes", "special tokens"])
def test_the_chat_template_gives_the_ids_of_training(template: Template) -> None:
    tokenizer = load_tokenizer("kava/tiny-gpt2")
    tokenizer.chat_template = chat_template(tokenizer, template)
    for question in (*PROBES, "  blanks around \n"):
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
        assert ids == encode_prompt(question, tokenizer, template)
    for bad in ([*chat, *chat], [{"role": "system", "content": "x"}], [{**chat[0], "content": []}]):
        with pytest.raises(Exception, match="a student answers one question"):
            tokenizer.apply_chat_template(bad)


def test_a_first_token_of_the_tokenizer_is_written_out() -> None:
    from tokenizers import processors

    tokenizer = load_tokenizer("kava/tiny-gpt2")
    mark = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{mark[0]} $A", special_tokens=[mark]
    )
    tokenizer.chat_template = chat_template(tokenizer, Template())
    chat = [{"role": "user", "content": "How many?"}]
    ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    assert ids == encode_prompt("How many?", tokenizer, Template())
    assert ids[0] == tokenizer.eos_token_id
