"""What the demo's pages say in words: the question, the pictures' captions, what to mind."""

from __future__ import annotations

from dataclasses import dataclass

from kava.demo.arms import NUM_LATENTS, NUM_VERBOSE_TOKENS, Demo
from kava.report.sections import CAPTIONS


@dataclass(frozen=True, kw_only=True)
class Story:
    """The words around the numbers of a demo; no number of a run is among them.

    Args:
        question: what is asked, paragraph by paragraph.
        captions: picture → (title, caption).
        mind: what to keep in mind when reading the result.
    """

    question: tuple[str, ...]
    captions: dict[str, tuple[str, str]]
    mind: tuple[str, ...]


_TASK = (
    "Four cups stand in a row, abcd. A move rearranges them: under 3142 the new row takes the "
    "cups that stood at places 3, 1, 4 and 2. In which order do the cups stand after four moves?"
)
_BUDGET = (
    "All runs start from the teacher's weights and see the same problems, in the same order for "
    "the same seed, for the same number of steps; the final questions are in nobody's training "
    "data, and were not used for the curves either."
)
_INTERVAL = (
    "Dots: the single seeds; those that are alike stand above one another. Bars: the 95 % Wilson "
    "interval of their mean, for as many questions as one seed was asked."
)
_READING = CAPTIONS["reading_curves"]
_CURVES = "Right answers on held-out questions while training; one line a seed."

MAIN_STORY = Story(
    question=(
        _TASK,
        "The teacher, a small Llama, writes the row after each move and then answers. Its student "
        f"is to answer without writing: it may only think in {NUM_LATENTS} latent tokens, vectors "
        "that are fed back and never become words. What has to be taught for that? The right "
        "answer alone, the teacher's hidden state before the answer (CODI), or the keys and "
        "values that the teacher's cache holds at its reasoning (KaVa)?",
        "One arm has neither, and is trained to read written steps where its latents stand "
        "(text_ce), which shows it no latent.",
    ),
    captions={
        "reading": _READING,
        "accuracy": ("Right answers by arm", _INTERVAL),
        "curves": ("Right answers while training", _CURVES),
        "losses": (
            "Losses while training",
            "Answer: the loss of the latent students on their training data. KV cache: the "
            "distance between a student's cache and its teacher's on held-out samples and, as a "
            "control, the distance from the teacher's cache of another sample; were the two alike, "
            "the student would have matched any cache, and learned nothing of its sample. Hidden "
            "state: the distance before the answer, on the training data.",
        ),
        "passes": (
            "Right answers and forward passes",
            "Forward passes are counted one question at a time, the prompt's among them.",
        ),
    },
    mind=(
        _BUDGET,
        f"Here a step of reasoning is one token, and there are as many latents as tokens "
        f"({NUM_LATENTS}). So matching the cache comes close to showing the student every step, "
        f"and sequential latents take as many passes as writing does. Which positions to keep "
        f"when the reasoning is longer is what kava demo --eviction looks at.",
    ),
)


def eviction_story(num_latents: int) -> Story:
    """The words of the eviction study with `num_latents` latents."""
    more = (
        "."
        if num_latents == NUM_LATENTS
        else f", and fills the other {num_latents - NUM_LATENTS} places with the last of the rest."
    )
    return Story(
        question=(
            _TASK,
            f"Here the teacher writes each step in five tokens: the row before, the move, an "
            f"arrow, the row after, a semicolon. Of these {NUM_VERBOSE_TOKENS} tokens only the "
            f"rows after a move carry what the next step needs. The student has {num_latents} "
            f"latents, and a rule, which does not know the task, chooses the positions of the "
            f"teacher's cache that they are matched with. The oracle knows it, and keeps the three "
            f"rows{more}",
        ),
        captions={
            "reading": _READING,
            "accuracy": ("Right answers by rule", _INTERVAL),
            "kept": (
                "What each rule keeps",
                "The stronger the blue, the more of the layers and heads keep the token. Bold: the "
                "tokens that a step arrives at. The student is matched with what its rule keeps, "
                "in order.",
            ),
            "curves": ("Right answers while training", _CURVES),
            "losses": (
                "Losses while training",
                "The distance between a student's cache and the kept positions of its teacher's, "
                "on held-out samples, and, in grey, those of another sample. How small it gets "
                "depends on what is kept, so rules are not to be ranked by it: the letters in the "
                "titles say which are measured alike.",
            ),
        },
        mind=(
            _BUDGET,
            "The teacher was trained to write the long and the short form. It reads the long one; "
            "the student is asked for the short one.",
        ),
    )


_PAIR = (
    "The teacher is a GPT-2: learned positions, four layers of three heads of 32, and a tokenizer "
    "that reads a row of cups in two tokens. The student is a Llama: rotary positions, two layers "
    "of four heads of 16, one token a row. The teacher's cache has to be brought to the student's "
    "tokens, layers, heads and head dims before the two can be compared."
)
_START = (
    "All students start from the same model, which can write its reasoning, and see the same "
    "problems, in the same order for the same seed, for the same number of steps; the final "
    "questions are in nobody's training data, and were not used for the curves either."
)
_FITTED = (
    "Calibrated maps are fitted in closed form, before training, to texts that both models read, "
    "and then frozen. Their parameters are not found by steps of the optimiser; those of maps that "
    "learn beside the student are."
)
_DISTANCE = (
    "On held-out samples, the distance between a student's cache and its target, and, in grey, the "
    "target of another sample. Targets differ between maps, so that a smaller distance is not a "
    "better teacher: a map that learns beside the student can bring it to nothing by saying "
    "nothing. Letters in the titles, where there are any, say which arms are measured alike."
)

MAPS_STORY = Story(
    question=(
        _TASK,
        _PAIR,
        "Which map of heads and head dims teaches the student? Each of its layers has a map of its "
        "own, where it is fitted: one or eight terms, each a mix of heads and one map of head dims "
        "for all of them (shared, rank 8); one term with a map of head dims for every head (per "
        "head); any linear map (flat). Beside them stand maps that are not fitted (uniform, "
        "random), maps that learn beside the student (joint), and two controls: no teacher at all, "
        "and the rank-8 map with the cache of another sample.",
    ),
    captions={
        "reading": _READING,
        "accuracy": ("Right answers by map", _INTERVAL),
        "curves": ("Right answers while training", _CURVES),
        "losses": ("Losses while training", _DISTANCE),
        "layers": (
            "Which layers are read",
            "For each of the student's layers, the weights of the teacher's.",
        ),
        "heads": (
            "Which heads are read",
            "For each of the student's heads, how much of the fitted map reads each of the "
            "teacher's: the norm of that block, against the largest of its panel.",
        ),
        "time": (
            "Which tokens are read",
            "One problem, in the student's tokens above and the teacher's below. A line: the "
            "teacher's token is part of what the student's is compared with; the stronger, the "
            "larger its part.",
        ),
    },
    mind=(
        _START,
        _FITTED,
        f"There are as many latents as reasoning tokens ({NUM_LATENTS}), so that no position had "
        f"to be chosen.",
    ),
)

RANK_STORY = Story(
    question=(
        _TASK,
        _PAIR,
        "A structured map is a sum of terms: each mixes heads, and maps head dims the same way for "
        "all of them. One term is the strictest map, and enough terms are any linear map. How many "
        "does the student need?",
    ),
    captions={
        "reading": _READING,
        "rank": (
            "Right answers and fit by the number of terms",
            "Above: right answers; dots are the single seeds, bars the 95 % Wilson interval of "
            "their mean. Below: of the variance of held-out keys and values, the share that the "
            "fitted map explains. Grey: the full map.",
        ),
        "accuracy": ("Right answers by map", _INTERVAL),
        "curves": ("Right answers while training", _CURVES),
        "losses": ("Losses while training", _DISTANCE),
    },
    mind=(_START, _FITTED),
)

JOINT_STORY = Story(
    question=(
        _TASK,
        _PAIR,
        "Where the teacher's cache is mapped to the student, a map that learns beside it can move "
        "the target to wherever the student stands. Where the student's cache is mapped to the "
        "teacher, the target stays where it is. Each way the map learns beside the student, or is "
        "fitted and frozen; and it learns once more on the caches of other samples, from which "
        "nothing can be learned. A loss that gets as small there has said nothing of the sample.",
    ),
    captions={
        "reading": _READING,
        "accuracy": ("Right answers by arm", _INTERVAL),
        "curves": ("Right answers while training", _CURVES),
        "losses": ("Losses while training", _DISTANCE),
    },
    mind=(_START, _FITTED),
)

STORIES = {"main": MAIN_STORY, "maps": MAPS_STORY, "rank": RANK_STORY, "joint": JOINT_STORY}


def story_of(demo: Demo) -> Story:
    """The words of a demo."""
    if demo.kind == "eviction":
        return eviction_story(demo.num_latents)
    return STORIES[demo.kind]
