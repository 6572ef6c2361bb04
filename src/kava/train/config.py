"""The configuration of a training run: one flat dataclass, one help text per field.

The same keys serve as command-line flags (`--kv_weight 5`), as keys of a YAML file (`--config`)
and as arguments in Python. Flags win over the file; an unknown key is refused in all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kava.align import LAYER_MAPS
from kava.align.resample import SegmentResampling
from kava.compress import EVICTIONS
from kava.devices import DEVICE_HELP, DTYPES
from kava.losses import KV_LOSSES, LAYER_EMPHASES
from kava.student.config import DECODINGS
from kava.trace import SCOPES
from kava.train.checks import check_config
from kava.train.resampling import INTERPOLATED, REASONING_ONLY, resampling_of


def _flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(kw_only=True)
class TrainConfig:
    """Everything that decides a run.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.

    Example:
        >>> TrainConfig(model_name="kava/tiny-gpt2", output_dir="outputs/x", target_len=4)
    """

    # models
    model_name: str = _flag(
        "kava/shell-teacher",
        "student: a hub id, a local folder, or a built-in kava/ name; also where it starts from",
    )
    teacher_name: str | None = _flag(
        None,
        "frozen teacher (same kinds of name). Left out, the student teaches itself: its own "
        "weights read the written reasoning (self-distillation, as in the KaVa paper)",
    )
    student: str = _flag(
        "latent",
        "latent: M latent tokens replace the written reasoning; explicit: the student reads it",
    )
    target_len: int = _flag(6, "M, the number of latents, and of kept cache positions; 0: none")
    decoding: str = _flag("sequential", f"how latents are decoded: {' or '.join(DECODINGS)}")
    jacobi_iterations: int = _flag(
        3, "T, Jacobi passes after the first; target_len equals sequential, 0 is pause tokens"
    )
    projection_dropout: float = _flag(0.0, "dropout in the projection from hidden state to latent")

    # data
    dataset_name: str = _flag(
        "kava/shell-game",
        "kava/shell-game (built in, with options such as ?num_moves=4&form=verbose), a task (from "
        "the hub, or TASK:PATH), mix:TASK=SHARE,…, or the path of a .jsonl, .json, .csv or "
        ".parquet file",
    )
    split: str = _flag("train", "split to train on, where the source has splits")
    eval_dataset_name: str | None = _flag(
        None, "data to evaluate on; left out, eval_size samples are set apart from dataset_name"
    )
    eval_split: str = _flag("test", "split of eval_dataset_name")
    subset_size: int | None = _flag(None, "use this many training samples, taken at random")
    eval_size: int = _flag(0, "evaluation samples; 0: no evaluation during training")
    question_field: str = _flag("question", "field of a row that holds the question")
    reasoning_field: str = _flag("reasoning", "field that holds the reasoning")
    answer_field: str = _flag("answer", "field that holds the answer")
    text_field: str | None = _flag(
        None,
        "field of a raw text, whose parts are found by their markers; left out: text, where a row "
        "has no question",
    )
    reasoning_triggers: list[str] | None = _flag(  # noqa: RUF009
        None, "markers at which the reasoning of a raw text begins; left out: kava.segments's"
    )
    answer_triggers: list[str] | None = _flag(  # noqa: RUF009
        None,
        "markers before the answer of a raw text, or of an answer that holds its reasoning; left "
        "out: kava.segments's",
    )
    reasoning_form: str = _flag(
        "text",
        "calculator marks <<a=b>>b: text strips them, annotated leaves them, equations keeps "
        "nothing else",
    )
    keep_last_step: bool = _flag(
        False, "keep the last reasoning step, which states the answer (the paper leaves it out)"
    )
    max_length: int = _flag(512, "most tokens of a sample, with its end-of-sequence token")
    overflow: str = _flag(
        "error",
        "a sample that is too long, has fewer reasoning tokens than target_len, or whose segments "
        "are not found: error, or skip (counted and reported)",
    )

    keep_short: bool = _flag(
        False,
        "keep samples with fewer reasoning tokens than target_len: all of their positions are "
        "kept, and their last latents are left without a target; also samples of a task without "
        "reasoning, whose answer alone is learned",
    )

    # the teacher's cache: compression, alignment
    kv_method: str = _flag("rkv", f"which positions are kept: {', '.join(EVICTIONS)}")
    kv_scope: str | None = _flag(
        None,
        f"how widely kept positions are shared: {', '.join(SCOPES)}; left out, the method's own",
    )
    rkv_lambda: float | None = _flag(
        None, "weight of importance against redundancy in rkv and rkv_official; left out: theirs"
    )
    knockout_reach: str = _flag(
        "later_steps",
        "knockout: whose loss counts when a position is hidden. later_steps: that of later steps "
        "and of the answer's value; all: that of every later token",
    )
    kv_scores_path: str | None = _flag(
        None,
        "file of knockout's scores: read where it is there, made and completed where not; left "
        "out: kv_scores.safetensors in output_dir",
    )
    alignment_mode: str = _flag(
        "identity",
        "how the teacher's cache is brought to the student's geometry; identity needs equal ones",
    )
    map_proj_share_dim: bool = _flag(False, "structured: one dim map for all heads")
    map_proj_init_uniform: bool = _flag(
        False,
        "structured: start from uniform head groups and identity dims, not at random; decides "
        "frozen and joint maps, a fitted one does not depend on its start",
    )
    flat_variant: str | None = _flag(
        None,
        "flat: elastic, linear or residual projector; left out: elastic, and linear where maps "
        "are calibrated, which is what least squares can fit",
    )
    layer_mapping: str | None = _flag(
        None,
        f"which teacher layers a student layer matches, by depth: {', '.join(LAYER_MAPS)}; left "
        f"out: ratio",
    )
    use_cka_layer_mapping: bool = _flag(
        False,
        "match layers by how alike they are (CKA): the map of layer_mapping_path or, without one, "
        "measured before training on calibration_samples",
    )
    layer_mapping_path: str | None = _flag(
        None, "a layer map's file, such as kava layer-map writes; takes the place of layer_mapping"
    )
    aligner_fit: str = _flag(
        "calibrated",
        "calibrated: per-layer maps fitted in closed form on texts that both models read, then "
        "frozen; frozen: the maps keep their start; joint: they learn beside the student, which "
        "can collapse (the run logs the wrong-sample control); calibrated_joint: fitted, then "
        "joint. identity alignment has nothing to fit",
    )
    align_direction: str = _flag(
        "teacher_to_student",
        "where caches are compared: teacher_to_student maps the teacher's cache; "
        "student_to_teacher maps the student's, so that the target cannot collapse",
    )
    map_rank: str | None = _flag(
        None,
        "structured, calibrated: number of head-mix ⊗ dim-map terms per layer, or auto (the "
        "smallest whose held-out R² is near the full map's); left out: 1",
    )
    calibration_samples: int = _flag(1000, "training samples that the aligner is fitted on")
    token_alignment: str = _flag(
        "hard",
        "a teacher with another tokenizer: hard takes the teacher's position where the student's "
        "token is complete, soft the mean over the positions it covers, none (latent students) "
        "keeps the teacher's own positions",
    )
    key_space: str = _flag(
        "unrotated",
        "compare keys unrotated (rotary embedding taken out), rotated (as both models cache them) "
        "or student (the teacher's taken out, aligned, and rotated as the student's are cached)",
    )
    use_segment_resampling: bool = _flag(
        False,
        "warp the teacher's segments (0 prompt, 1 reasoning, 2 answer) to the student's slots, "
        "each by itself, in place of evicting positions; needs --kv_method full",
    )
    segment_ratios: str = _flag(
        REASONING_ONLY,
        "slots for each position of a segment, as 0:1.0,1:0.5,2:1.0; segments that are not named "
        "are left out. Latents are shared out in these proportions",
    )
    segment_alphas: str = _flag(
        INTERPOLATED,
        "how smoothly a segment is read between its positions: 0 the nearest, 1 interpolated",
    )

    # losses
    kv_loss: str = _flag("smooth_l1", f"{', '.join(KV_LOSSES)}")
    kv_weight: float = _flag(1.0, "α₂, weight of the KV loss; 0 leaves it out")
    kv_layer_std: bool = _flag(False, "divide the KV error by the teacher's std, layer by layer")
    alpha_k: float = _flag(1.0, "weight of keys (structural, smooth_l1_alpha)")
    alpha_v: float = _flag(1.0, "weight of values (structural, smooth_l1_alpha)")
    alpha_attn: float = _flag(0.5, "weight of the attention divergence (structural)")
    distill_layers: str | None = _flag(
        None, "match these layers of the student alone, as 0,2,5; left out: all"
    )
    distill_k_only: bool = _flag(False, "match keys alone")
    distill_v_only: bool = _flag(False, "match values alone")
    attention_weighted_kv: bool = _flag(
        False, "weigh the slots of the KV loss by the attention of the teacher's answer to them"
    )
    attention_weighted_warmup: int = _flag(
        0, "for so many steps all slots weigh alike, then the weights come in over as many again"
    )
    layer_weight_annealing: str = _flag(
        "none",
        f"{', '.join(LAYER_EMPHASES)}: which of the student's layers weigh most at first, in the "
        f"KV and CKA losses; linearly to all alike",
    )
    layer_weight_annealing_steps: int | None = _flag(
        None, "steps after which all layers weigh alike; left out: the whole run"
    )
    cka_weight: float = _flag(
        0.0, "weight of 1 - CKA between the student's cache and its target; 0 leaves it out"
    )
    codi_weight: float = _flag(0.0, "α₁, weight of the CODI loss; 0 leaves it out")
    latent_ce_weight: float = _flag(
        0.0,
        "weight of the cross-entropy of what each latent reads as through the output head, on the "
        "reasoning tokens that it stands for; 0 leaves it out; needs no teacher",
    )
    ce_weight: float = _flag(1.0, "weight of the student's cross-entropy")
    teacher_ce_weight: float = _flag(
        1.0, "self-distillation: weight of the cross-entropy of the written reasoning"
    )
    wrong_sample: bool = _flag(
        False,
        "control: give every sample the teacher's cache of another one, and its latents another "
        "one's reasoning to read as",
    )

    # optimisation
    epochs: float = _flag(3.0, "passes over the data")
    max_steps: int = _flag(-1, "optimiser steps; above 0 it overrides epochs")
    batch_size: int = _flag(8, "samples per device and step")
    gradient_accumulation_steps: int = _flag(1, "batches per optimiser step")
    lr: float = _flag(5e-5, "peak learning rate of AdamW")
    lr_scheduler: str = _flag("cosine", "a transformers scheduler name: cosine, linear, constant…")
    warmup_steps: int = _flag(0, "steps of linear warm-up")
    weight_decay: float = _flag(0.01, "AdamW's weight decay")
    max_grad_norm: float = _flag(1.0, "clip gradients to this norm")
    bf16: bool = _flag(False, "compute in bfloat16 (autocast); what is trained stays float32")
    fp16: bool = _flag(
        False, "compute in float16 with a scaled loss, on a GPU; what is trained stays float32"
    )
    dtype: str = _flag(
        "float32",
        f"dtype of the frozen teacher's weights: {', '.join(DTYPES)}; what is trained is float32",
    )
    seed: int = _flag(0, "seed of initialisation, data order and dropout")
    device: str = _flag("auto", DEVICE_HELP)

    # the run
    output_dir: str = _flag("outputs/run", "folder for checkpoints, metrics and TensorBoard")
    logging_steps: int = _flag(10, "log every so many steps")
    save_steps: int = _flag(500, "write a checkpoint every so many steps, and at the end")
    save_total_limit: int | None = _flag(
        2, "keep this many newest checkpoints, and the best beside them; 0: all"
    )
    save_only_model: bool = _flag(
        False,
        "write checkpoints without optimiser and random states, a third of the size: they can be "
        "evaluated, but no run can go on from them",
    )
    eval_steps: int = _flag(500, "evaluate every so many steps, and at the end")
    eval_batch_size: int = _flag(64, "samples per batch in evaluation")
    max_new_tokens: int = _flag(64, "most tokens to generate per answer in evaluation")
    resume: bool = _flag(False, "go on from the newest whole checkpoint in output_dir")
    resume_from: str | None = _flag(
        None,
        "go on from this checkpoint: a folder, or the name of one in output_dir such as "
        "checkpoint-500; later ones there are taken away with overwrite alone",
    )
    overwrite: bool = _flag(False, "start anew although output_dir holds checkpoints")
    no_progress: bool = _flag(False, "no progress bars")

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def self_distillation(self) -> bool:
        """Whether the student's own weights are the teacher."""
        return self.teacher_name is None

    @property
    def calibrates(self) -> bool:
        """Whether the aligner is fitted before training."""
        return self.alignment_mode != "identity" and self.aligner_fit.startswith("calibrated")

    @property
    def trains_aligner(self) -> bool:
        """Whether the aligner learns beside the student."""
        return self.alignment_mode != "identity" and self.aligner_fit.endswith("joint")

    @property
    def trains_target(self) -> bool:
        """Whether the target moves while the student learns, so that the two can collapse."""
        return self.trains_aligner and self.align_direction == "teacher_to_student"

    @property
    def measures_layers(self) -> bool:
        """Whether the layer map is measured before training."""
        return self.use_cka_layer_mapping and self.layer_mapping_path is None

    @property
    def matches_cache(self) -> bool:
        """Whether the student's cache is compared with the teacher's."""
        return self.kv_weight > 0 or self.cka_weight > 0

    @property
    def no_matching(self) -> str:
        """The flag that leaves that comparison out."""
        return "--kv_weight 0" if self.kv_weight else "--cka_weight 0"

    @property
    def unrotates(self) -> bool:
        """Whether the teacher's keys are aligned without their rotation."""
        return self.key_space != "rotated"

    @property
    def resampling(self) -> SegmentResampling | None:
        """How the teacher's segments are warped to the student's slots, if they are."""
        return resampling_of(self)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher's forward is part of the step."""
        if self.matches_cache or self.codi_weight:
            return True
        return self.student == "latent" and self.self_distillation and self.teacher_ce_weight > 0


# what a resumed run may change without becoming another run
RESUMABLE = frozenset(
    {"resume", "resume_from", "overwrite", "no_progress", "output_dir", "device"}
    | {"save_steps", "save_total_limit", "save_only_model", "kv_scores_path"}
)
