"""The objective: one step of distillation, from a batch to a loss.

    L = CE(answer | latents, prompt) + CE(reasoning, answer | prompt) + α₁·L_CODI + α₂·L_KV

(KaVa, arXiv 2510.02312; the second term is the teacher mode of self-distillation, where teacher
and student share their weights.) Not in the paper: where a frozen teacher teaches, nothing of
this trains the student to read a chain of thought between its thought vectors. `--text_ce_weight`
adds the cross-entropy of the text in that layout, `--inject_weight` that of the answer behind the
target's keys and values, and `--latent_ce_weight` that of what the latents themselves read as.

In self-distillation the student continues from the cache that the teacher's pass left over the
prompt, otherwise from that of its own pass over the written text, so that it reads the prompt
once; the gradients are those of separate passes.

Every term is a sum over its items divided by the number of these items in the whole accumulated
batch of all processes, so that no batch split, accumulation or world size changes a gradient.

Shapes: B batch, P prompt columns, T text columns, A answer columns, M slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kava.align import MapProjectionAligner
from kava.data.collate import IGNORED, Batch
from kava.losses import (
    CODILoss,
    TrainingProgress,
    fading_share,
    hidden_at,
    latent_ce_loss,
    warmup_share,
)
from kava.models.capture import capture, check_attention
from kava.models.lora import lora_off
from kava.models.offload import Resting
from kava.models.rotary import rotary_of
from kava.rope import Rotary, at_length_of, rotate_trace, unrotate_trace
from kava.store.teacher import StoredTeacher
from kava.student.cache import Pairs, pairs_of
from kava.student.latent import LatentStudent
from kava.student.written import Written
from kava.trace import KVTrace
from kava.train.around import Around, rotary_of_latents
from kava.train.config import TrainConfig
from kava.train.defaults import steps_to_fade
from kava.train.items import Items, count_items
from kava.train.matching import Matching, compares_queries
from kava.train.reading import answer_from, read_answers, written_text
from kava.train.shared_space import build_space
from kava.train.target import Target, TargetBuilder, attention_flag, map_student
from kava.train.teacher_pass import Pass, TeacherPass, read_teacher, text_column
from kava.train.teaching import Teacher, check_attention_of, freeze, rotary_of_teacher
from kava.train.terms import Forward, Terms, token_loss
from kava.train.wrong_sample import of_sample_before, reasoning_to_read


class Distiller(nn.Module):
    """Student, aligner and losses as one module; the frozen teacher stands beside it.

    Args:
        student: a `LatentStudent`, or any causal model for an explicit student.
        config: the run's configuration.
        aligner: maps the teacher's cache to the student's geometry.
        teacher: the frozen teacher; None in self-distillation; the student's own base where that
            teaches with its adapters off.

    Raises:
        ValueError: a model whose rotation or attention the configuration needs and that cannot be
            described.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        config: TrainConfig,
        aligner: MapProjectionAligner,
        teacher: Teacher | None = None,
    ):
        super().__init__()
        self.student = student
        self.settings = config
        self.map_aligner = aligner
        self.map_aligner.requires_grad_(config.trains_aligner)
        # in a tuple: not a submodule, so neither trained, saved, wrapped nor counted
        self.own_frozen = teacher is self.base
        if teacher is not None and not self.own_frozen:
            freeze(teacher)
        self._teacher = () if teacher is None else (teacher,)
        self.resting = Resting()
        reader = self.base if teacher is None else teacher
        unrotates = config.matches_cache and config.unrotates
        self.rotary: Rotary | None = rotary_of(self.base) if unrotates else None
        rotary = rotary_of_teacher(reader) if unrotates else None
        self.build_target = TargetBuilder(config, aligner, rotary)
        self.matching = Matching(config, aligner.student.num_layers)
        self.space = build_space(config, aligner.student, self.matching.layers)
        self.progress = TrainingProgress()
        if config.codi_weight:
            self.codi = CODILoss(self.base.config.hidden_size, reader.config.hidden_size)
        self.queries = compares_queries(config)
        flag = attention_flag(config)
        self.teacher_queries = flag is not None
        if flag is not None:
            check_attention_of(reader, flag)
        if flag is not None and self.queries:
            check_attention(self.base, flag)

    @property
    def base(self) -> PreTrainedModel:
        """The causal language model inside the student."""
        return self.student.base if isinstance(self.student, LatentStudent) else self.student

    @property
    def teacher(self) -> Teacher | None:
        """The frozen teacher, if there is one."""
        return self._teacher[0] if self._teacher else None

    @property
    def readers(self) -> tuple[Teacher, ...]:
        """What leaves the caches to be matched, one for each of `aligners`."""
        return (self.base if self.teacher is None else self.teacher,)

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """Those of `readers` that are no stores."""
        return tuple(one for one in self.readers if isinstance(one, PreTrainedModel))

    @property
    def aligners(self) -> tuple[MapProjectionAligner, ...]:
        """The aligner of each teacher."""
        return (self.map_aligner,)

    def move_teacher(self, device: torch.device) -> None:
        """The trainer moves this module; the teachers are not part of it."""
        if self.teacher is not None and not self.own_frozen:
            self.resting.place(self.models, device, rest=self.settings.teacher_offload)

    def forward(
        self,
        batch: Batch,
        num_items: Tensor | None = None,
        *,
        diagnose: bool = False,
        before: KVTrace | None = None,
    ) -> Forward:
        """One batch through teacher and student.

        Args:
            batch: as the collator makes it.
            num_items: [6], the counts of `Items` over the accumulated batch; default: this one's.
            diagnose: also say which answers a latent student can read, see `kava.train.reading`.
            before: for that, the latents of the sample before the first; see `wrong_sample`.
        """
        counts = count_items(batch, self.settings) if num_items is None else num_items.unbind()
        # a batch of samples without reasoning has no slots: its terms are zero, not 0/0
        items = Items(*(max(n, 1) if isinstance(n, int) else n.clamp(min=1) for n in counts))
        if isinstance(self.student, LatentStudent):
            return self._latent(self.student, batch, items, diagnose, before)
        return self._explicit(batch, items, diagnose)

    def _latent(
        self,
        student: LatentStudent,
        batch: Batch,
        items: Items,
        diagnose: bool,
        before: KVTrace | None,
    ) -> Forward:
        config = self.settings
        prompt = batch["prompt_ids"], batch["prompt_mask"]
        teacher = self._first_teacher(batch)
        pairs: Pairs | None = None
        if teacher is not None and self.teacher is None and batch["shared_prompt"]:
            assert isinstance(teacher, TeacherPass)
            pairs = pairs_of(teacher.cache, batch["prompt_ids"].shape[1])
        writes = teacher is not None and teacher.writes
        text_share = self._fading(config.text_ce_steps) if config.text_ce_weight else 0.0
        written = None
        if text_share or (diagnose and not writes):
            written = self._read_written(student, batch, pairs)
            pairs = written.prompt_pairs
        output = student(
            *prompt,
            batch["answer_ids"],
            prompt_pairs=pairs,
            queries=self.queries,
            hidden_states=config.codi_weight > 0,
            readings=config.latent_ce_weight > 0,
            trace=config.matches_cache or diagnose,
        )
        labels = batch["answer_ids"].masked_fill(batch["answer_mask"] == 0, IGNORED)
        terms = Terms()
        self._add_ce(terms, token_loss(output.logits, labels, items.answer_tokens))
        if written is not None and text_share:
            text = token_loss(written.logits, written.text.labels, items.text_tokens)
            terms.add("text_ce", config.text_ce_weight, text, text_share)
        elif config.text_ce_weight:
            terms.faded("text_ce", output.logits)
        if output.readings is not None:
            loss, metrics = latent_ce_loss(
                output.readings, *reasoning_to_read(batch, config.wrong_sample), items.latents
            )
            terms.add("latent_ce", config.latent_ce_weight, loss)
            terms.metrics.update(metrics)
        others = None if teacher is None else self._read_before(batch)
        if isinstance(teacher, TeacherPass) and writes:
            loss = token_loss(teacher.logits, teacher.labels, items.written_tokens)
            terms.add("teacher_ce", config.teacher_ce_weight, loss)
        if teacher is not None and config.codi_weight:
            assert output.hidden_states is not None
            ours = hidden_at(output.hidden_states, batch["student_codi"] + 1)
            theirs = teacher.before_answer()
            if config.wrong_sample:
                theirs = of_sample_before(
                    theirs, None if others is None else others.before_answer()
                )
            codi = self.codi(ours, theirs, items.samples, self._codi_layers())
            terms.add("codi", config.codi_weight, codi)
        latents, target, rotary = output.trace, None, None
        if latents is not None:
            rotary = rotary_of_latents(self.rotary, latents, batch["answer_ids"].shape[1])
        if config.matches_cache:
            assert latents is not None
            around = Around(batch, latents, output, rotary, labels, items, diagnose)
            target = self._target(teacher, others, around, terms)
            share = self._fading(config.inject_steps) if config.inject_weight else 0.0
            if share:
                logits = answer_from(student, batch, output, target.trace, rotary)
                injected = token_loss(logits, labels, items.answer_tokens)
                terms.add("inject_ce", config.inject_weight, injected, share)
            elif config.inject_weight:
                terms.faded("inject_ce", output.logits)
        if diagnose:
            read = teacher if written is None else written
            assert isinstance(read, TeacherPass | Written)
            maps = self.map_aligner.direction == "teacher_to_student"
            there = target.trace if target is not None and maps else None
            terms.reading = read_answers(student, batch, output, read, there, rotary, before)
        if target is None or latents is None:
            return terms.done()
        return self._match(terms, latents, target, items, rotary)

    def _first_teacher(self, batch: Batch) -> Pass | None:
        """The pass of a teacher that reads before the student does."""
        return self._read_teacher(batch) if self.settings.needs_teacher else None

    def _target(
        self,
        teacher: Pass | None,
        before: Pass | None,
        around: Around,
        terms: Terms,
    ) -> Target:
        """What the student's cache is matched with.

        `before` is the pass over the sample before the first, for the wrong-sample control;
        `terms` takes further terms and what is logged.
        """
        assert teacher is not None
        return self.build_target(
            teacher.trace, around.batch, None if before is None else before.trace
        )

    def _read_written(self, student: LatentStudent, batch: Batch, pairs: Pairs | None) -> Written:
        text = written_text(batch)
        return student.read_written(batch["prompt_ids"], batch["prompt_mask"], text, pairs)

    def _add_ce(self, terms: Terms, ce: Tensor) -> None:
        share = warmup_share(self.progress.step, self.settings.ce_warmup)
        terms.add("ce", self.settings.ce_weight * share, ce)

    def _fading(self, num_steps: int | None) -> float:
        """The share of a fading term's weight."""
        return fading_share(self.progress.step, steps_to_fade(num_steps, self.progress.num_steps))

    def _codi_layers(self) -> Tensor | None:
        weights = self.map_aligner.layer_weights
        return None if weights.shape[0] == weights.shape[1] else weights

    def _read_teacher(self, batch: Batch) -> Pass:
        """One pass of the teacher, with gradients only where its text is trained too."""
        if isinstance(self.teacher, StoredTeacher):
            return self.teacher.read(batch)
        own = self.teacher is None
        model = self.base if own or self.teacher is None else self.teacher
        trained = own and self.settings.teacher_ce_weight > 0
        with lora_off(model) if self.own_frozen else self.resting.awake(model):
            return read_teacher(model, batch, own, trained, self.teacher_queries, self.settings)

    @torch.no_grad()
    def _read_before(self, batch: Batch) -> Pass | None:
        """The teacher's pass over the sample that the wrong-sample control gives the first one."""
        if not self.settings.wrong_sample or "before" not in batch:
            return None
        return self._read_teacher(batch["before"])

    def _explicit(self, batch: Batch, items: Items, diagnose: bool) -> Forward:
        config = self.settings
        P = text_column(batch["segment_ids"])
        columns = torch.arange(P - 1, batch["input_ids"].shape[1] - 1)
        outputs, trace = capture(
            self.base,
            batch["input_ids"],
            batch["attention_mask"],
            batch["segment_ids"],
            queries=self.queries,
            hidden_states=False,
            logits_to_keep=columns.to(batch["input_ids"].device),
        )
        terms = Terms()
        self._add_ce(terms, token_loss(outputs.logits, batch["labels"][:, P:], items.answer_tokens))
        if not config.matches_cache:
            return terms.done()
        rotary = at_length_of(trace, self.rotary)
        around = Around(batch, trace, None, rotary, batch["labels"], items, diagnose)
        before = self._read_before(batch)
        target = self._target(self._first_teacher(batch), before, around, terms)
        ours = trace.gather(target.columns, mask=target.trace.mask, scope=target.trace.scope)
        return self._match(terms, ours, target, items, rotary)

    def _match(
        self,
        terms: Terms,
        student: KVTrace,
        target: Target,
        items: Items,
        rotary: Rotary | None,
    ) -> Forward:
        student = student.in_float32()
        if self.settings.key_space == "student":
            there = rotate_trace(target.trace, rotary, student.positions)
            target = replace(target, trace=there)
        elif self.settings.unrotates:
            student = unrotate_trace(student, rotary)
        student = self.matching.select(map_student(self.map_aligner, student))
        target = replace(target, trace=self.matching.select(target.trace))
        for name, weight, loss, metrics in self.matching.terms(
            student, target.trace, items.slots, self.progress, target.weights
        ):
            terms.add(name, weight, loss)
            terms.metrics.update(metrics)
        terms.add_points(self.space, self.settings, student, target, items.slots)
        return terms.done(student, target)
