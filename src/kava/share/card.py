"""The model card of a student, written from its run's logs alone.

A number that the logs do not hold is said to be absent; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kava.format import percent, percents
from kava.losses.reading import reading_of
from kava.names import is_given, without_given
from kava.share.facts import Facts
from kava.train.loss_line import ALWAYS, WHERE_USED

NOT_STATED = "not stated"
NOT_RECORDED = "not recorded"
_PAPER = "arXiv [2510.02312](https://arxiv.org/abs/2510.02312)"
_READINGS = {
    "written": "the written chain of thought",
    "target": "the teacher's target in place of the latents",
    "latents": "the latents",
    "wrong_sample": "another question's latents",
}


def model_card(
    facts: Facts, *, name: str, licences: Mapping[str, str | None], dtype: str, command: str
) -> str:
    """The README.md of a student's folder: a header that the hub reads, and the text.

    Args:
        facts: what the checkpoint and its logs say.
        name: title of the card.
        licences: licence of each model by its name, None where none is stated.
        dtype: of the weights in the folder.
        command: the command that wrote the folder.

    Example:
        >>> print(model_card(facts_of("outputs/run/checkpoint-500"), name="my-student", …))
    """
    from huggingface_hub import ModelCard, ModelCardData

    base = facts.config.get("model_name")
    latent = facts.student == "latent"
    known = base is not None and not str(base).startswith("kava/") and not is_given(base)
    licence = None if base is None else licences.get(base)
    header = ModelCardData(
        base_model=base if known else None,
        license=None if licence is None else licence.lower(),  # as the hub spells them
        library_name="kava" if latent else "transformers",
        pipeline_tag="text-generation",
        tags=["kava", "distillation", *(["latent-reasoning"] if latent else [])],
    )
    body = "\n".join(_lines(facts, name, licences, dtype, command))
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{body}\n"))


def _lines(
    facts: Facts, name: str, licences: Mapping[str, str | None], dtype: str, command: str
) -> Iterator[str]:
    yield f"# {name}\n"
    yield from _what(facts)
    yield "\n## Use\n"
    yield from _use(facts, name)
    yield "\n## Training\n"
    yield from _table(_training(facts, dtype))
    yield "\n## Results\n"
    yield from _results(facts)
    yield "\n## Does it use what it was taught?\n"
    yield from _control(facts)
    yield "\n## Licences\n"
    yield from _table(
        (f"{role} `{without_given(model)}`", licences.get(model) or NOT_STATED)
        for role, model in _models(facts)
    )
    yield "\n## How it was made\n"
    made = facts.command or "# trained in Python, with objects that no command line names"
    yield f"```bash\n{made}\n{command}\n```"
    versions = ", ".join(f"{library} {number}" for library, number in facts.versions.items())
    yield f"\nTrained with {versions or 'versions that were not recorded'}."


def _what(facts: Facts) -> Iterator[str]:
    config = facts.config
    if facts.student == "latent":
        M = config.get("target_len")
        yield (
            f"A student that reasons in {'an unknown number of' if M is None else M} latent tokens "
            f"in place of a written chain of thought, distilled from a teacher's key/value cache "
            f"(KaVa, {_PAPER})."
        )
        yield (
            "\nThis folder holds the base model, which any program loads, and beside it "
            "`kava_latent.json` and `kava_latent.safetensors`, without which it does **not** "
            "reason: loaded as a plain model it skips the latents."
        )
    else:
        yield (
            f"A student that writes its reasoning, trained with a teacher's key/value cache (KaVa, "
            f"{_PAPER}). It is a plain model of transformers."
        )


def _use(facts: Facts, name: str) -> Iterator[str]:
    ask = (
        'chat = [{"role": "user", "content": "How many?"}]   # the template is that of training\n'
        "batch = tokenizer.apply_chat_template(\n"
        '    chat, return_tensors="pt", return_dict=True, add_generation_prompt=True\n'
        ")\n"
        "ids = model.generate(**batch)\n"
        'print(tokenizer.decode(ids[0, batch["input_ids"].shape[1]:], skip_special_tokens=True))'
    )
    if facts.student == "latent":
        load = (
            "from kava import load_student   # pip install kava-distill\n\n"
            f'student = load_student("{name}")   # a folder, or a name on the hub\n'
            "model, tokenizer = student.model, student.tokenizer\n"
        )
    else:
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{name}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        )
    yield f"```python\n{load}{ask}\n```"


def _training(facts: Facts, dtype: str) -> Iterator[tuple[str, str]]:
    config = facts.config
    if not config:
        yield "settings", NOT_RECORDED
    else:
        several = len(facts.teachers) > 1
        fusion = f"; fusion: {config.get('fusion')}" if several else ""
        teachers = ", ".join(f"`{name}`" for name in facts.teachers)
        yield "student's base", f"`{config.get('model_name')}`, {facts.student}"
        yield "teacher", f"{teachers}{fusion}" if teachers else "itself (self-distillation)"
        yield "data", f"`{config.get('dataset_name')}`, split {config.get('split')}"
    yield "hash of the training records", f"`{facts.data_hash or NOT_RECORDED}`"
    if config:
        if facts.student == "latent":
            jacobi = config.get("decoding") == "jacobi"
            iterations = f", {config.get('jacobi_iterations')} iterations" if jacobi else ""
            yield "latents", f"{config.get('target_len')}, {config.get('decoding')}{iterations}"
        yield (
            "target",
            f"{config.get('kv_method')} to {config.get('target_len')} positions, "
            f"{config.get('alignment_mode')} alignment",
        )
        labels = {**ALWAYS, **WHERE_USED}
        terms = [f"{labels.get(name, name)} {weight:g}" for name, weight in facts.weights.items()]
        yield "losses and their weights", ", ".join(terms) or NOT_RECORDED
        yield "form of the KV loss", f"{config.get('kv_loss')}"
        if config.get("lora_r"):
            yield "LoRA", f"rank {config['lora_r']}, α {config.get('lora_alpha'):g}, merged here"
        batch = f"{config.get('batch_size')} × {config.get('gradient_accumulation_steps')}"
        yield (
            "optimiser",
            f"AdamW, learning rate {config.get('lr'):g}, {config.get('lr_scheduler')}, batch "
            f"{batch}, seed {config.get('seed')}",
        )
        if config.get("wrong_sample"):
            yield "control", "taught by **another question's** cache (`--wrong_sample`)"
    yield "steps", NOT_RECORDED if facts.step is None else f"{facts.step:,}"
    yield "weights in this folder", dtype


def _results(facts: Facts) -> Iterator[str]:
    row, config = facts.evaluation, facts.config
    if not row:
        yield "Not measured: the logs of the run hold no evaluation."
        return
    name = config.get("eval_dataset_name")
    apart = f"set apart from `{config.get('dataset_name')}`"
    questions = f"of `{name}`, split {config.get('eval_split')}" if name else apart
    yield f"At step {row['step']:,}, on held-out questions {questions}:\n"
    yield from _table(_measured(row))


def _measured(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from kava.statistics.intervals import wilson

    accuracy, num_items = row.get("eval_accuracy"), row.get("eval_num_items")
    if accuracy is None:
        yield "right answers", "not measured"
    elif num_items is None:
        yield (
            "right answers",
            f"{percent(accuracy)} (no interval: the number of questions is {NOT_RECORDED})",
        )
    else:
        low, high = wilson(round(accuracy * num_items), int(num_items))
        yield (
            "right answers",
            f"{percent(accuracy)} of {int(num_items):,} questions (95 % Wilson interval "
            f"{percents(low, high)})",
        )
    if "eval_guessing" in row:
        yield "always the most frequent answer", percent(row["eval_guessing"])
    if "eval_forward_passes" in row:
        yield "forward passes of an answer", f"{row['eval_forward_passes']:.1f}"
    yield "cross-entropy of the answer", f"{row['eval_ce']:.4g}"


def _control(facts: Facts) -> Iterator[str]:
    row, verdict = facts.evaluation, facts.verdict
    rows = [("KV loss with the question's own target", row.get("eval_kv"))]
    rows += [("KV loss with another question's target", row.get("eval_kv_wrong_sample"))]
    yield from _table(
        (what, f"not measured{'' if row else ': nothing was held out'}")
        if value is None
        else (what, f"{value:.4g}")
        for what, value in rows
    )
    reading = reading_of(row)
    if reading:
        yield "\nRight answers, by what the answer is read from:\n"
        yield from _table((_READINGS.get(n, n), percent(share)) for n, share in reading.items())
    elif facts.student == "latent":
        yield "\nRight answers by what the answer is read from: not measured."
    parts = [verdict, *(verdict.get(name) or {} for name in ("answers", "reading"))]
    said = [part["sentence"] for part in parts if part.get("sentence")]
    said += [str(verdict[name]) for name in ("routing", "space") if verdict.get(name)]
    yield f"\nThe collapse guard's verdict: {'; '.join(said) or NOT_RECORDED}."


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "| | |\n|---|---|"
    for what, value in rows:
        yield f"| {what} | {value.replace('|', chr(92) + '|')} |"


def _models(facts: Facts) -> Iterator[tuple[str, str]]:
    base = facts.config.get("model_name")
    if base is not None:
        yield "student's base", str(base)
    for teacher in facts.teachers:
        if teacher != base:
            yield "teacher", teacher
