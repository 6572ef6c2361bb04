"""The configuration of a training run: one flat dataclass, one help text per field.

The same keys serve as command-line flags (`--kv_weight 5`), as keys of a YAML file (`--config`)
and as arguments in Python. Flags win over the file; an unknown key is refused in all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava import names
from kava.dataset_names import check_dataset_name
from kava.devices import DEVICE_HELP, DTYPES, check_device_name
from kava.flags import check_fields, flag
from kava.limits import check_map_rank
from kava.train.checks import check_config
from kava.train.defaults import LeftOut, settle
from kava.train.layers import parse_layers
from kava.train.resampling import (
    INTERPOLATED,
    REASONING_ONLY,
    check_alphas,
    check_ratios,
    resampling_of,
)

if TYPE_CHECKING:
    from kava.align.resample import SegmentResampling


@dataclass(kw_only=True)
class TrainConfig(LeftOut):
    """Everything that decides a run.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.

    Example:
        >>> TrainConfig(model_name="kava/tiny-gpt2", output_dir="outputs/x", target_len=4)
    """

    # models
    model_name: str = flag(
        "kava/shell-teacher",
        "student: a hub id, a local folder, or a built-in kava/ name; also where it starts from",
        group="models and latents",
    )
    teacher_name: str | None = flag(
        None,
        "frozen teacher (same kinds of name). Left out, the student teaches itself: its own "
        "weights read the written reasoning (self-distillation, as in the KaVa paper)",
    )
    student: str = flag(
        "latent",
        "latent: M latent tokens replace the written reasoning; explicit: the student reads it",
        choices=names.STUDENTS,
        hint="the student's model is named by --model_name",
    )
    target_len: int = flag(
        None,
        "M, the number of latents, and of kept cache positions; 0: none",
        least=0,
        most=names.MOST_LATENTS,
        unset="6, or fewer where the built-in game has fewer tokens",
    )
    decoding: str = flag("sequential", "how latents are decoded", choices=names.DECODINGS)
    jacobi_iterations: int = flag(
        3,
        "T, Jacobi passes after the first; target_len equals sequential, 0 is pause tokens",
        least=0,
        most=names.MOST_LATENTS,
    )
    projection_dropout: float = flag(
        0.0, "dropout in the projection from hidden state to latent", least=0, below=1
    )

    # data
    dataset_name: str = flag(
        "kava/shell-game",
        "kava/shell-game (built in, with options such as ?num_moves=4&form=verbose), a task (from "
        "the hub, or TASK:PATH), mix:TASK=SHARE,…, or the path of a .jsonl, .json, .csv or "
        ".parquet file",
        check=check_dataset_name,
        group="data",
    )
    split: str = flag("train", "split to train on, where the source has splits")
    eval_dataset_name: str | None = flag(
        None,
        "data to evaluate on; left out, eval_size samples are set apart from dataset_name",
        check=check_dataset_name,
    )
    eval_split: str = flag("test", "split of eval_dataset_name")
    subset_size: int | None = flag(None, "use this many training samples, taken at random", least=1)
    eval_size: int = flag(0, "evaluation samples; 0: no evaluation during training", least=0)
    question_field: str = flag("question", "field of a row that holds the question")
    reasoning_field: str = flag("reasoning", "field that holds the reasoning")
    answer_field: str = flag("answer", "field that holds the answer")
    text_field: str | None = flag(
        None,
        "field of a raw text, whose parts are found by their markers; left out: text, where a row "
        "has no question",
    )
    reasoning_triggers: list[str] | None = flag(
        None, "markers at which the reasoning of a raw text begins; left out: kava.segments's"
    )
    answer_triggers: list[str] | None = flag(
        None,
        "markers before the answer of a raw text, or of an answer that holds its reasoning; left "
        "out: kava.segments's",
    )
    reasoning_form: str = flag(
        "text",
        "calculator marks <<a=b>>b: text strips them, annotated leaves them, equations keeps "
        "nothing else",
        choices=names.REASONING_FORMS,
    )
    keep_last_step: bool = flag(
        False, "keep the last reasoning step, which states the answer (the paper leaves it out)"
    )
    max_length: int = flag(512, "most tokens of a sample, with its end-of-sequence token", least=1)
    overflow: str = flag(
        "error",
        "a sample that is too long, has fewer reasoning tokens than target_len, or whose segments "
        "are not found: error, or skip (counted and reported)",
        choices=names.OVERFLOWS,
    )

    keep_short: bool = flag(
        False,
        "keep samples with fewer reasoning tokens than target_len: all of their positions are "
        "kept, and their last latents are left without a target; also samples of a task without "
        "reasoning, whose answer alone is learned",
    )

    # the teacher's cache: compression, alignment
    kv_method: str = flag(
        "rkv",
        "which positions are kept",
        choices=names.EVICTION_NAMES,
        group="the target",
    )
    kv_scope: str | None = flag(
        None,
        "how widely kept positions are shared; left out, the method's own",
        choices=names.SCOPES,
    )
    rkv_lambda: float | None = flag(
        None,
        "weight of importance against redundancy in rkv and rkv_official; left out: theirs",
        least=0,
        most=1,
    )
    knockout_reach: str = flag(
        "later_steps",
        "knockout: whose loss counts when a position is hidden. later_steps: that of later steps "
        "and of the answer's value; all: that of every later token",
        choices=names.REACHES,
    )
    kv_scores_path: str | None = flag(
        None,
        "file of knockout's scores: read where it is there, made and completed where not; left "
        "out: kv_scores.safetensors in output_dir",
    )
    alignment_mode: str = flag(
        None,
        "how the teacher's cache is brought to the student's geometry; identity needs equal ones",
        choices=names.ALIGNMENT_MODES,
        unset="structured where another model teaches, else identity",
    )
    map_proj_share_dim: bool = flag(False, "structured: one dim map for all heads")
    map_proj_init_uniform: bool = flag(
        False,
        "structured: start from uniform head groups and identity dims, not at random; decides "
        "frozen and joint maps, a fitted one does not depend on its start",
    )
    flat_variant: str | None = flag(
        None,
        "flat: elastic, linear or residual projector; left out: elastic, and linear where maps "
        "are calibrated, which is what least squares can fit",
        choices=names.FLAT_VARIANTS,
    )
    layer_mapping: str | None = flag(
        None,
        "which teacher layers a student layer matches, by depth; left out: ratio",
        choices=names.LAYER_MAP_NAMES,
    )
    use_cka_layer_mapping: bool = flag(
        False,
        "match layers by how alike they are (CKA): the map of layer_mapping_path or, without one, "
        "measured before training on calibration_samples",
    )
    layer_mapping_path: str | None = flag(
        None, "a layer map's file, such as kava layer-map writes; takes the place of layer_mapping"
    )
    aligner_fit: str = flag(
        "calibrated",
        "calibrated: per-layer maps fitted in closed form on texts that both models read, then "
        "frozen; frozen: the maps keep their start; joint: they learn beside the student, which "
        "can collapse (the run logs the wrong-sample control); calibrated_joint: fitted, then "
        "joint. identity alignment has nothing to fit",
        choices=names.ALIGNER_FITS,
    )
    align_direction: str = flag(
        "teacher_to_student",
        "where caches are compared: teacher_to_student maps the teacher's cache; "
        "student_to_teacher maps the student's, so that the target cannot collapse",
        choices=names.ALIGN_DIRECTIONS,
    )
    map_rank: str | None = flag(
        None,
        "structured, calibrated: number of head-mix ⊗ dim-map terms per layer, or auto (the "
        "smallest whose held-out R² is near the full map's); left out: 1",
        check=check_map_rank,
    )
    calibration_samples: int = flag(1000, "training samples that the aligner is fitted on", least=1)
    token_alignment: str = flag(
        "hard",
        "a teacher with another tokenizer: hard takes the teacher's position where the student's "
        "token is complete, soft the mean over the positions it covers, none (latent students) "
        "keeps the teacher's own positions",
        choices=names.TOKEN_ALIGNMENTS,
    )
    key_space: str = flag(
        "unrotated",
        "compare keys unrotated (rotary embedding taken out), rotated (as both models cache them) "
        "or student (the teacher's taken out, aligned, and rotated as the student's are cached)",
        choices=names.KEY_SPACES,
    )
    use_segment_resampling: bool = flag(
        False,
        "warp the teacher's segments (0 prompt, 1 reasoning, 2 answer) to the student's slots, "
        "each by itself, in place of evicting positions; needs --kv_method full",
    )
    segment_ratios: str = flag(
        REASONING_ONLY,
        "slots for each position of a segment, as 0:1.0,1:0.5,2:1.0; segments that are not named "
        "are left out. Latents are shared out in these proportions",
        check=check_ratios,
    )
    segment_alphas: str = flag(
        INTERPOLATED,
        "how smoothly a segment is read between its positions: 0 the nearest, 1 interpolated",
        check=check_alphas,
    )

    # losses
    kv_loss: str = flag(
        "smooth_l1", "how keys and values are compared", choices=names.KV_LOSS_NAMES, group="losses"
    )
    kv_weight: float = flag(1.0, "α₂, weight of the KV loss; 0 leaves it out", least=0)
    kv_layer_std: bool = flag(False, "divide the KV error by the teacher's std, layer by layer")
    alpha_k: float = flag(1.0, "weight of keys (structural, smooth_l1_alpha)", least=0)
    alpha_v: float = flag(1.0, "weight of values (structural, smooth_l1_alpha)", least=0)
    alpha_attn: float = flag(0.5, "weight of the attention divergence (structural)", least=0)
    distill_layers: str | None = flag(
        None,
        "match these layers of the student alone, as 0,2,5; left out: all",
        check=parse_layers,
    )
    distill_k_only: bool = flag(False, "match keys alone")
    distill_v_only: bool = flag(False, "match values alone")
    attention_weighted_kv: bool = flag(
        False, "weigh the slots of the KV loss by the attention of the teacher's answer to them"
    )
    attention_weighted_warmup: int = flag(
        0,
        "for so many steps all slots weigh alike, then the weights come in over as many again",
        least=0,
    )
    layer_weight_annealing: str = flag(
        "none",
        "which of the student's layers weigh most at first, in the KV and CKA losses; linearly to "
        "all alike",
        choices=names.LAYER_EMPHASES,
    )
    layer_weight_annealing_steps: int | None = flag(
        None,
        "steps after which all layers weigh alike; left out: the whole run",
        least=1,
    )
    cka_weight: float = flag(
        0.0,
        "weight of 1 - CKA between the student's cache and its target; 0 leaves it out",
        least=0,
    )
    codi_weight: float = flag(0.0, "α₁, weight of the CODI loss; 0 leaves it out", least=0)
    latent_ce_weight: float = flag(
        0.0,
        "weight of the cross-entropy of what each latent reads as through the output head, on the "
        "reasoning tokens that it stands for; 0 leaves it out; needs no teacher",
        least=0,
    )
    ce_weight: float = flag(1.0, "weight of the student's cross-entropy", least=0)
    teacher_ce_weight: float = flag(
        1.0,
        "self-distillation: weight of the cross-entropy of the written reasoning",
        least=0,
    )
    wrong_sample: bool = flag(
        False,
        "control: give every sample the teacher's cache of another one, and its latents another "
        "one's reasoning to read as",
    )

    # optimisation
    epochs: float = flag(3.0, "passes over the data", above=0, group="optimisation")
    max_steps: int = flag(-1, "optimiser steps; above 0 it overrides epochs", least=-1)
    batch_size: int = flag(8, "samples per device and step", least=1, most=names.MOST_BATCH)
    gradient_accumulation_steps: int = flag(
        1, "batches per optimiser step", least=1, most=names.MOST_BATCH
    )
    lr: float = flag(5e-5, "peak learning rate of AdamW", above=0)
    lr_scheduler: str = flag(
        "cosine",
        "a scheduler of transformers",
        choices=names.SCHEDULERS,
    )
    warmup_steps: int = flag(0, "steps of linear warm-up", least=0)
    weight_decay: float = flag(0.01, "AdamW's weight decay", least=0)
    max_grad_norm: float = flag(1.0, "clip gradients to this norm", least=0)
    bf16: bool = flag(False, "compute in bfloat16 (autocast); what is trained stays float32")
    fp16: bool = flag(
        False, "compute in float16 with a scaled loss, on a GPU; what is trained stays float32"
    )
    dtype: str = flag(
        "float32",
        "dtype of the frozen teacher's weights; what is trained is float32",
        choices=DTYPES,
    )
    seed: int = flag(
        0, "seed of initialisation, data order and dropout", least=0, most=names.MOST_SEED
    )
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)

    # the run
    output_dir: str = flag(
        "outputs/run", "folder for checkpoints, metrics and TensorBoard", group="the run"
    )
    logging_steps: int = flag(10, "log every so many steps", least=1)
    save_steps: int = flag(500, "write a checkpoint every so many steps, and at the end", least=1)
    save_total_limit: int | None = flag(
        2, "keep this many newest checkpoints, and the best beside them; 0: all", least=0
    )
    save_only_model: bool = flag(
        False,
        "write checkpoints without optimiser and random states, a third of the size: they can be "
        "evaluated, but no run can go on from them",
    )
    eval_steps: int = flag(500, "evaluate every so many steps, and at the end", least=1)
    eval_batch_size: int = flag(
        64, "samples per batch in evaluation", least=1, most=names.MOST_BATCH
    )
    max_new_tokens: int = flag(64, "most tokens to generate per answer in evaluation", least=1)
    resume: bool = flag(False, "go on from the newest whole checkpoint in output_dir")
    resume_from: str | None = flag(
        None,
        "go on from this checkpoint: a folder, or the name of one in output_dir such as "
        "checkpoint-500; later ones there are taken away with overwrite alone",
    )
    overwrite: bool = flag(False, "start anew although output_dir holds checkpoints")
    no_progress: bool = flag(False, "no progress bars")

    def __post_init__(self) -> None:
        check_fields(self)
        self.left_out = settle(self)
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
