"""`kava generate`: let a trained student answer questions."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kava.commands.answering import StudentConfig, load
from kava.flags import Usage, flag
from kava.flags.aliases import ANSWERING
from kava.models.quiet import quiet_libraries


@dataclass(kw_only=True)
class GenerateConfig(StudentConfig):
    """What `kava generate` is asked for.

    Raises:
        ValueError: a value outside its range, or flags that exclude each other.
    """

    prompt: list[str] | None = flag(
        None,
        "a question; given several times, all are answered, in their order",
        repeat=True,
        group="questions",
    )
    input: str | None = flag(
        None,
        "a file of questions: one per line, or the field `question` of a .jsonl, .json, .csv or "
        ".parquet file; without --prompt and --input, they are read from stdin, one per line",
    )
    written: bool = flag(
        False,
        "show the written reasoning before the answer (not for a latent student)",
        group="output",
    )
    show_latents: bool = flag(
        False,
        "also print what each latent reads as through the output head, under its answer (not for "
        "a student that writes its reasoning)",
    )
    top_k: int | None = flag(
        None, "with --show_latents, tokens to print for each latent", least=1, unset="3"
    )
    stats: bool = flag(False, "also tell forward passes, tokens and time, on stderr")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt is not None and self.input is not None:
            raise ValueError("--prompt and --input exclude each other")
        if self.top_k is not None and not self.show_latents:
            raise ValueError(f"--top_k {self.top_k} is read by --show_latents alone: pass it too")


USAGE = Usage(
    prog="kava generate",
    kind=GenerateConfig,
    summary="Let a trained student answer questions.",
    example='kava generate outputs/run --prompt "How many?"',
    known=ANSWERING,
)


def main(argv: list[str]) -> int:
    """Answer questions: one answer per question on stdout."""
    config = USAGE.parse(argv)
    quiet_libraries()

    from kava.data.answers import extract_answer
    from kava.evaluate.questions import read_questions
    from kava.student.answering import complete
    from kava.student.readout import check_readable, describe
    from kava.train.recorded import new_tokens_of

    top_k = (3 if config.top_k is None else config.top_k) if config.show_latents else 0
    student = load(config)
    if config.written and student.settings.get("student") == "latent":
        raise ValueError(
            f"--written: {student.path} reasons in latent tokens and writes no reasoning; leave "
            f"it out, or take an explicit student"
        )
    if config.show_latents:
        check_readable(student.model, student.path, top_k)
    names, questions = read_questions(config.prompt, config.input)
    completions, seconds = complete(
        student.model,
        student.tokenizer,
        questions,
        student.template,
        names=names,
        batch_size=config.batch_size,
        max_new_tokens=new_tokens_of(student.settings, config.max_new_tokens),
        progress=len(questions) > config.batch_size,
        top_k=top_k,
    )
    for completion in completions:
        text = completion.text.strip()
        print(text if config.written else extract_answer(text, student.template.cue))
        if config.show_latents:
            print(describe(completion.readings))
    if config.stats:
        count = len(completions)
        passes = sum(completion.num_passes for completion in completions) / count
        tokens = sum(completion.num_tokens for completion in completions) / count
        print(
            f"{passes:.1f} forward passes, {tokens:.1f} tokens and {seconds / count:.4g} s per "
            f"answer ({count} in {seconds:.4g} s, {tokens * count / seconds:.4g} tokens per "
            f"second)",
            file=sys.stderr,
        )
    return 0
