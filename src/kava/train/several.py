"""The objective with several teachers, whose caches are fused into one target.

    each teacher's trace ─► its kept positions ─► its map ─┐
    …                                                      ├─► fusion ─► target
    the student's values where the reasoning begins ───────┘

The student's part of a step is that of one teacher. Where the teacher of each sample is known
before any reads (the data name it, a policy draws it, one weight is 1), a teacher reads its own
samples alone, so that N teachers cost about as much as one.

A router learns in one of three ways. *gradient*: the KV loss goes through the weights into it.
*likelihood*: the target takes the place of the latents, the student reads the answer, and the
gradient of its cross-entropy goes through the weights alone; this is one step of the inner problem,
taken in the space of caches, in which the student's cache arrives at its target (bilevel
optimisation moves the weights instead, as in DARTS, arXiv 1806.09055). *policy*: REINFORCE
(Williams, 1992) with a running mean as baseline; the reward of a drawn teacher is how much better
the student reads the answer from that teacher's target than from its own latents.

Shapes: B batch, L layers, H key/value heads, M slots, D head dim, N teachers, C = H·D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, set_seed

from kava.align import MapProjectionAligner
from kava.data.collate import Batch
from kava.fuse import (
    EntropyRegularizer,
    Fused,
    Fusion,
    LayerRouters,
    LearnableFusion,
    Offers,
    UnionFusion,
    agreement,
    build_fusion,
    load_balance_loss,
    mix,
    renormalise,
)
from kava.fuse.base import one_hot
from kava.rope import unrotate_trace
from kava.student.latent import LatentStudent
from kava.trace import KVTrace
from kava.train.around import Around, query_of
from kava.train.config import TrainConfig
from kava.train.objective import Distiller
from kava.train.router_terms import answer_ce, policy_loss, summed_ce, through_weights
from kava.train.routing import Routing, over_slots
from kava.train.shared_space import mixed_points
from kava.train.side_passes import Read, SidePasses, signal_of
from kava.train.target import Target, TargetBuilder, attention_flag
from kava.train.teacher_names import teachers_of
from kava.train.teacher_pass import Pass
from kava.train.teaching import Teacher, check_attention_of, freeze, rotary_of_teacher
from kava.train.terms import Forward, Terms, with_all_parameters
from kava.train.wrong_sample import of_sample_before, tokens_to_write


class SeveralDistiller(Distiller):
    """Student, the aligners of all teachers, the fusion, and a router if one is trained.

    Args:
        student: as `Distiller` takes it.
        config: the run's configuration, of two teachers or more.
        aligners: one for each teacher.
        teachers: the frozen models; one may stand there twice.

    Raises:
        ValueError: as `Distiller`.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        config: TrainConfig,
        aligners: Sequence[MapProjectionAligner],
        teachers: Sequence[Teacher],
    ):
        super().__init__(student, config, aligners[0], teachers[0])
        for n, aligner in enumerate(aligners[1:], start=1):
            self.add_module(f"map_aligner_{n}", aligner.requires_grad_(config.trains_aligner))
        self._all = tuple(freeze(teacher) for teacher in teachers)
        self.labels = [one.label for one in teachers_of(config)]
        geometry = aligners[0].student
        if config.trains_router:
            set_seed(config.seed)
            self.router = LayerRouters(
                geometry.num_layers,
                geometry.num_heads * geometry.head_dim,
                len(teachers),
                per_layer=config.fusion_per_layer,
                router_type=config.router_type,
            )
            # mean reward, and whether there is one
            self.reward_baseline: Tensor
            self.register_buffer("reward_baseline", torch.zeros(2))
        self.fusion: Fusion = build_fusion(
            config.fusion,
            weights=None if config.fixed_weights is None else tuple(config.fixed_weights),
            temperature=config.fusion_temperature,
            per_layer=config.fusion_per_layer,
            prototype=config.prototype,
            similarity=config.similarity,
            disagreement=config.disagreement,
            threshold=config.disagreement_threshold,
            router=getattr(self, "router", None),
            learning=config.router_learning,
        )
        slots: Sequence[int | None] = [None] * len(teachers)
        if isinstance(self.fusion, UnionFusion):
            slots = self.fusion.slots(config.target_len, len(teachers))
        flag = attention_flag(config)
        self.builders = []
        for aligner, teacher, count in zip(aligners, teachers, slots):
            rotary = rotary_of_teacher(teacher) if config.unrotates else None
            self.builders.append(TargetBuilder(config, aligner, rotary, count))
            if flag is not None:
                check_attention_of(teacher, flag)
        self.passes = SidePasses(
            config, self._all, self.builders, self.fusion.reads, self.teacher_queries, self.resting
        )

    @property
    def aligners(self) -> tuple[MapProjectionAligner, ...]:
        """The aligner of each teacher."""
        others = (getattr(self, f"map_aligner_{n}") for n in range(1, len(self._all)))
        return (self.map_aligner, *others)

    @property
    def readers(self) -> tuple[Teacher, ...]:
        """The frozen teachers."""
        return self._all

    def forward(self, *args: Any, **options: Any) -> Forward:
        """As `Distiller`, with a gradient for every parameter that is trained."""
        return with_all_parameters(super().forward(*args, **options), self)

    def _first_teacher(self, batch: Batch) -> Pass | None:
        return None

    def _read_before(self, batch: Batch) -> Pass | None:
        return None

    def _target(
        self,
        teacher: Pass | None,
        before: Pass | None,
        around: Around,
        terms: Terms,
    ) -> Target:
        config = self.settings
        fusion = self._fusion()
        offers = self._offers(around)
        chosen_B = None
        # the wrong sample's cache is that of another row, and a diagnosis looks at all teachers
        if not config.wrong_sample and not around.diagnose:
            chosen_B = fusion.choose(offers)
        read = self.passes.read(around.batch, offers.present_BN, chosen_B)
        offers = self._with(offers, read, around)
        if config.trains_router and config.router_learning == "policy":
            drawn = fusion.choose(offers) if chosen_B is None else chosen_B
            offers = replace(offers, chosen_B=drawn)
        fused = fusion(offers)
        target = fused.trace
        if isinstance(fusion, LearnableFusion):
            if config.router_learning != "gradient":  # aligners learn by the KV loss all the same
                weights = fused.weights.detach()
                target = mix(offers, weights) if config.trains_aligner else target.detach()
            self._train_router(fusion, offers, fused, around, terms)
        self._record(fused, offers, around, terms)
        points = mixed_points(self.space, config, self.matching.select, offers, fused)
        columns = torch.zeros(1, dtype=torch.long, device=target.keys.device)
        counts = fused.position_weights
        if config.student == "explicit":
            used = target.valid_BT().any(0).nonzero()[:, 0]
            first, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            target = target.slice(first, stop)
            points = None if points is None else points[:, first:stop]
            counts = None if counts is None else counts[:, first:stop]
            columns = torch.arange(first, stop, device=columns.device).expand(len(target.keys), -1)
        return Target(target, columns, counts, points)

    def _fusion(self) -> Fusion:
        """The fusion at this step's temperature."""
        end = self.settings.fusion_temperature_end
        if end is None or not hasattr(self.fusion, "temperature"):
            return self.fusion
        done = min(self.progress.step / max(self.progress.num_steps, 1), 1.0)
        start = self.settings.fusion_temperature
        now = start + done * (end - start)
        found: Fusion = replace(self.fusion, temperature=now)  # type: ignore[type-var]
        return found

    def _offers(self, around: Around) -> Offers:
        """What is known before any teacher reads."""
        batch = around.batch
        present_BN = batch["present"].bool()
        if self.settings.wrong_sample:
            other = None if "before" not in batch else batch["before"]["present"].bool()
            present_BN = of_sample_before(present_BN, other)
        if self.training and self.settings.teacher_order == "in_turn":
            turn = self.progress.step % len(self._all)
            only = torch.arange(len(self._all), device=present_BN.device) == turn
            present_BN = present_BN & only
        return Offers(
            traces=(),
            present_BN=present_BN,
            query_BLC=query_of(around),
            chosen_B=batch.get("teacher_index"),
            explore=self.training,
        )

    def _with(self, offers: Offers, read: Sequence[Read | None], around: Around) -> Offers:
        """The offers with what the teachers left behind."""
        union = isinstance(self.fusion, UnionFusion)
        some = next((one.target for one in read if one is not None), None)
        if some is None:  # in a batch without a sample of the chosen teachers, nothing is compared
            some = replace(around.student.detach(), rotated=not self.settings.unrotates)
        traces = []
        for one, builder in zip(read, self.builders):
            if one is not None:
                traces.append(one.target)
                continue
            empty = some.slice(0, builder.target_len) if union else some
            traces.append(replace(empty, mask=torch.zeros_like(empty.valid_BT())))
        there_N = torch.tensor([one is not None for one in read], device=some.keys.device)

        text_BN = signal_of(read, "text_B")
        if text_BN is not None:
            text_BN = text_BN / tokens_to_write(around.batch, self.settings).clamp(min=1)
        # a policy's shares are those of the draw, whoever was drawn in this batch
        draws = self.settings.trains_router and self.settings.router_learning == "policy"
        present_BN = offers.present_BN if draws else offers.present_BN & there_N
        student = None
        compares = around.diagnose or "student" in self.fusion.reads
        if compares and not union and around.student.length == traces[0].length:
            student = self._compared_student(around)
        return replace(
            offers,
            traces=tuple(traces),
            present_BN=present_BN,
            student=student,
            answer_BN=signal_of(read, "answer_B"),
            text_BN=text_BN,
        )

    def _compared_student(self, around: Around) -> KVTrace:
        """The student's trace in the key space of the targets."""
        student = around.student.detach().in_float32()
        return unrotate_trace(student, around.rotary) if self.settings.unrotates else student

    def _train_router(
        self,
        fusion: LearnableFusion,
        offers: Offers,
        fused: Fused,
        around: Around,
        terms: Terms,
    ) -> None:
        """The terms that train the router, beside the KV loss."""
        config = self.settings
        shares_BLN = fusion.shares(offers)
        part = shares_BLN.shape[0] / around.items.samples
        if config.entropy_reg_strength:
            regulariser = EntropyRegularizer(config.entropy_target, 1.0)
            loss = regulariser.compute_loss(shares_BLN) * part
            terms.add("route_entropy", config.entropy_reg_strength, loss)
        if config.balance_weight:
            terms.add("route_balance", config.balance_weight, load_balance_loss(shares_BLN) * part)
        if config.router_learning == "likelihood" and config.router_weight:
            ce_B = self._answer_ce(around, mix(offers, fused.weights))
            loss = through_weights(ce_B.sum() / around.items.samples, fused.weights)
            terms.add("route_likelihood", config.router_weight, loss)
        if config.router_learning == "policy" and config.router_weight:
            loss = self._policy(shares_BLN[:, 0], offers, fused, around)
            terms.add("route_policy", config.router_weight, loss)

    def _answer_ce(self, around: Around, target: KVTrace) -> Tensor:
        assert isinstance(self.student, LatentStudent)
        return answer_ce(self.student, around, target)

    def _policy(self, shares_BN: Tensor, offers: Offers, fused: Fused, around: Around) -> Tensor:
        assert around.output is not None
        assert offers.chosen_B is not None
        with torch.no_grad():
            own_B = summed_ce(around.output.logits, around.labels)
            reward_B = own_B - self._answer_ce(around, fused.trace)
        loss = policy_loss(
            shares_BN,
            offers.chosen_B,
            offers.present_BN,
            reward_B,
            self.reward_baseline,
            moves=self.training,
        )
        return loss / around.items.samples

    @torch.no_grad()
    def _record(self, fused: Fused, offers: Offers, around: Around, terms: Terms) -> None:
        """Log the weights; in a diagnosis also sample by sample, and what can be read."""
        L, M = fused.trace.num_layers, fused.trace.length
        weights_BLMN = fused.weights.detach()
        if not isinstance(self.fusion, UnionFusion):
            weights_BLMN = renormalise(weights_BLMN, offers.valid_BMN()[:, None])
        weights_BLN = over_slots(weights_BLMN.expand(-1, -1, M, -1), fused.trace.valid_BT())
        for n, label in enumerate(self.labels):
            share = weights_BLN[..., n].mean(1).sum() / around.items.samples
            terms.metrics[f"route_{label}"] = share
        if not around.diagnose:
            return
        cosine = None
        if offers.student is not None:
            cosine_BLM, several_BM = agreement(offers)
            counted_BM = several_BM.float()
            cosine = (cosine_BLM * counted_BM[:, None]).sum(-1)
            cosine = cosine / counted_BM.sum(-1).clamp(min=1)[:, None]
        routed = alone = None
        if isinstance(self.student, LatentStudent):
            routed = self._answer_ce(around, fused.trace)
            if not isinstance(self.fusion, UnionFusion):
                alone = torch.stack(
                    [self._alone(n, offers, around) for n in range(len(self._all))], -1
                )
        terms.routing = Routing(
            ids=around.batch["ids"],
            weights_BLN=weights_BLN.expand(-1, L if weights_BLN.shape[1] > 1 else 1, -1),
            agreement_BL=cosine,
            chosen_B=around.batch.get("teacher_index"),
            answer_ce_B=routed,
            answer_ce_BN=alone,
        )

    def _alone(self, n: int, offers: Offers, around: Around) -> Tensor:
        """[B]: the answer's cross-entropy, read from one teacher's target alone."""
        there_B = offers.present_BN[:, n]
        only = one_hot(torch.full_like(there_B, n, dtype=torch.long), offers.num_teachers)
        ce_B = self._answer_ce(around, mix(offers, only))
        return ce_B.masked_fill(~there_B, float("nan"))
