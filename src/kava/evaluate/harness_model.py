"""The model `kava` for lm-evaluation-harness.

Generation uses the same function as `kava evaluate`, with the student's template, so that the same
items get the same texts. lm_eval's own tasks, filters and metrics then judge them.

Shapes: B batch, N tokens of a continuation, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from torch import Tensor

from kava.data.special_tokens import SpecialTokens
from kava.data.text_tokens import tokenize
from kava.models.devices import choose_device
from kava.names import NO_CHAT
from kava.student.answering import complete, evaluating
from kava.student.checkpoint import load_student
from kava.student.latent import LatentStudent
from kava.student.settings import check_chat


@register_model("kava")
class KavaLM(LM):
    """A student of `load_student`, for lm-evaluation-harness.

    In a request to generate, the context is the question: it is put into the student's template,
    and the text after the latents, or the written reasoning with its answer, is returned up to the
    first of the task's stop strings. In a request to score a continuation, a latent student gives
    its probability after the question, the latents and the cue; any other model gives its
    probability after the unchanged context.

    Args:
        pretrained: a path or name for `load_student`: a checkpoint, a run's folder, a model.
        best: in a run's folder, take the checkpoint that the run recorded as its best.
        batch_size: requests per batch.
        device: where to put the model; None leaves it on the CPU. lm_eval requests cuda:0 by
            default: without a CUDA device, this means `auto` as in `kava evaluate`.
        max_new_tokens: maximum tokens per answer; None: the task's `max_gen_toks`, else the default
            for the kind of student.
        max_length: maximum positions; None: the limit of the model's configuration.
        max_batch_size: passed by lm_eval for automatic batch sizes, which are not supported.
        chat_template: none, tokenizer or the path of a .jinja file, for a plain model; a trained
            student has the prompt of its training.

    Raises:
        ValueError: no student, an argument that there is not, a size that is not a whole number
            above 0, or a chat template for a trained student.

    Example:
        >>> lm_eval.simple_evaluate(KavaLM("outputs/run"), tasks=["gsm8k"])
    """

    def __init__(
        self,
        pretrained: str = "",
        *,
        best: bool = False,
        batch_size: int | str = 64,
        device: str | None = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        max_batch_size: int | None = None,
        chat_template: str = NO_CHAT,
        **unknown: Any,
    ) -> None:
        super().__init__()
        for name, value in unknown.items():
            raise ValueError(
                f"{name}={value}: the model kava takes no {name}; choose from pretrained, best, "
                f"batch_size, device, max_new_tokens, max_length, chat_template"
            )
        if not pretrained:
            raise ValueError("no student is named: pass --model_args pretrained=outputs/run")
        if not isinstance(best, bool):
            raise ValueError(f"best={best} is not true or false")
        sizes = {"max_new_tokens": max_new_tokens, "max_length": max_length}
        for name, size in {"batch_size": batch_size, **sizes}.items():
            if size is not None and (not str(size).isdecimal() or int(size) < 1):
                raise ValueError(f"{name}={size} must be a whole number above 0")
        if device == "cuda:0" and not torch.cuda.is_available():
            device = "auto"
        where = None if device is None else choose_device(device)
        self.student = load_student(
            pretrained, best=best, device=where, chat_template=chat_template
        )
        check_chat(self.student.settings, self.student.path, chat_template)
        self.batch_size = int(batch_size)
        self.max_new_tokens = None if max_new_tokens is None else int(max_new_tokens)
        self.max_length = None if max_length is None else int(max_length)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name in the caches of lm_eval."""
        return self.student.path.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Not supported: the student's own template asks the question."""
        raise ValueError(
            "--apply_chat_template would put a chat into the student's prompt, which is a chat "
            "already where it was trained in one; leave it out, and for a plain model pass "
            "--model_args pretrained=…,chat_template=tokenizer"
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The student's text for each context, cut at the first stop string.

        Raises:
            ValueError: a task that asks for sampling, or a context that does not fit.
        """
        groups: dict[int | None, list[int]] = {}
        for index, request in enumerate(requests):
            options = request.args[1]
            if options.get("do_sample") and options.get("temperature", 1.0) > 0:
                raise ValueError(
                    "a student answers greedily, and the task asks for do_sample: true; set "
                    "do_sample to false in its generation_kwargs"
                )
            most = self.max_new_tokens or options.get("max_gen_toks")
            groups.setdefault(most, []).append(index)
        texts = [""] * len(requests)
        for most, chosen in groups.items():
            completions, _ = complete(
                self.student.model,
                self.student.tokenizer,
                [requests[index].args[0] for index in chosen],
                self.student.template,
                names=[f"request {index}" for index in chosen],
                batch_size=self.batch_size,
                max_new_tokens=most,
                progress=not disable_tqdm,
                max_length=self.max_length,
            )
            for index, completion in zip(chosen, completions):
                texts[index] = _until(completion.text, requests[index].args[1].get("until"))
        return texts

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding would produce it.

        Raises:
            ValueError: an empty continuation, or text that does not fit.
        """
        scored: list[tuple[float, bool]] = []
        with evaluating(self.student.model), torch.no_grad():
            for request in requests:
                scored.append(self._score(*request.args))
        return scored

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Not supported: a student answers questions."""
        raise ValueError(
            "--model kava answers questions, and the perplexity of running text is not asked of "
            "it; take --model hf for a plain model"
        )

    def _score(self, context: str, continuation: str) -> tuple[float, bool]:
        student = self.student
        latent = isinstance(student.model, LatentStudent)
        if latent:
            cue = student.template.cue
            before, text = student.template.prompt(context), continuation.lstrip()
            if cue and not cue[-1].isspace():
                text = continuation
            whole, start = before + cue + text, len(before + cue)
        else:
            before, whole, start = context, context + continuation, len(context)
        # an unchanged context may contain special tokens of a chat template; a question is text
        special = SpecialTokens.of(student.tokenizer, student.template)
        marks = not latent or special.in_template
        (item,) = tokenize([whole], student.tokenizer, marks=marks)
        (head,) = tokenize([before or whole[:1]], student.tokenizer, marks=marks)
        first = sum(end <= start for _, end in item.offsets) if start else 0
        first = max(first, 1)  # the first token has no context
        if first >= len(item.ids):
            raise ValueError(f"the continuation {continuation!r} has no token of its own")
        device = student.model.device
        ids = torch.tensor([item.ids], device=device)
        if latent:
            P = len(head.ids)
            prompt, answer = ids[:, :P], ids[:, P:]
            output = student.model(prompt, torch.ones_like(prompt), answer)
            return _sum(output.logits[0, first - P :], answer[0, first - P :])
        logits = student.model(input_ids=ids).logits
        return _sum(logits[0, first - 1 : -1], ids[0, first:])


def _sum(logits_NV: Tensor, ids_N: Tensor) -> tuple[float, bool]:
    logs = logits_NV.float().log_softmax(-1)
    chosen = logs.gather(1, ids_N[:, None]).sum().item()
    return chosen, bool((logs.argmax(-1) == ids_N).all())


def _until(text: str, stops: str | Sequence[str] | None) -> str:
    """Cut a text at the first stop string."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        if stop:
            text = text.partition(stop)[0]
    return text
