"""What the demo's pages say in words: the question, the pictures' captions, what to mind."""

from __future__ import annotations

from dataclasses import dataclass

from kava.demo.arms import EVICTION, MAIN, NUM_LATENTS, Study


@dataclass(frozen=True, kw_only=True)
class Story:
    """The words around the numbers of a study; no number of a run is among them.

    Args:
        title: of the page.
        question: what is asked, paragraph by paragraph.
        captions: picture → (title, caption).
        mind: what to keep in mind when reading the result.
    """

    title: str
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
    "Dots: the single seeds. Bars: the 95 % Wilson interval of their mean, for as many questions "
    "as one seed was asked."
)
_CURVES = "Right answers on held-out questions while training; one line a seed."

MAIN_STORY = Story(
    title="Which signal makes a student reason in latent tokens?",
    question=(
        _TASK,
        "The teacher, a small Llama, writes the row after each move and then answers. Its student "
        f"is to answer without writing: it may only think in {NUM_LATENTS} latent tokens, vectors "
        "that are fed back and never become words. What has to be taught for that? The right "
        "answer alone, the teacher's hidden state before the answer (CODI), or the keys and "
        "values that the teacher's cache holds at its reasoning (KaVa)?",
    ),
    captions={
        "accuracy": ("Right answers by arm", _INTERVAL),
        "curves": ("How the students learn", _CURVES),
        "losses": (
            "What the losses say",
            "Answer: the loss of the latent students on their training data. KV cache: the "
            "distance between a student's cache and its teacher's on held-out samples and, as a "
            "control, the distance from the teacher's cache of another sample; were the two alike, "
            "the student would have matched any cache, and learned nothing of its sample. Hidden "
            "state: the distance before the answer, on the training data.",
        ),
        "passes": (
            "What an answer costs",
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

EVICTION_STORY = Story(
    title=f"Which {NUM_LATENTS} of 15 reasoning tokens should the latents be matched with?",
    question=(
        _TASK,
        "Here the teacher writes each step in five tokens: the row before, the move, an arrow, "
        "the row after, a semicolon. Of these 15 tokens only the rows after a move carry what "
        f"the next step needs. The student has {NUM_LATENTS} latents, and a rule, which does not "
        "know the task, chooses the positions of the teacher's cache that they are matched with. "
        "The oracle knows it, and keeps the three rows.",
    ),
    captions={
        "accuracy": ("Right answers by rule", _INTERVAL),
        "kept": (
            "What each rule keeps",
            "The stronger the blue, the more of the layers and heads keep the token. Bold: the "
            "tokens that a step arrives at. The student is matched with what its rule keeps, in "
            "order.",
        ),
        "curves": ("How the students learn", _CURVES),
        "losses": (
            "What the losses say",
            "The distance between a student's cache and the kept positions of its teacher's, on "
            "held-out samples, and, in grey, those of another sample. How small it gets depends on "
            "what is kept, so rules are not to be ranked by it.",
        ),
    },
    mind=(
        _BUDGET,
        "The teacher was trained to write the long and the short form. It reads the long one; the "
        "student is asked for the short one.",
    ),
)

STORIES = {MAIN.name: MAIN_STORY, EVICTION.name: EVICTION_STORY}


def story_of(study: Study) -> Story:
    """The words of a study."""
    return STORIES[study.name]
