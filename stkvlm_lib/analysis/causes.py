"""Why an answer is wrong: the causes in the order of their rules, each with what would lift it.

Every wrong answer gets exactly one cause, the first whose rule holds, so that the budget sums to all errors.

The first rules need no picture: an answer outside the family's set, a question of no family, a wrong track. The next
look at the question alone, before the answer, because what is hard to see is hard for any model: a truth that a pixel
decides, a kart that is small, hidden, near level, or never met on this track in training. Such a property takes the
error only if it can explain it: a count must be off by no more karts than are hard to tell; all others are explained.
For each of these the budget gives all questions that have it as their first property, how many of them are right and
how many would be if they were answered like the plain questions of their families: the measured cost of the property.

What is left is plain to see, and the answers themselves tell why they are wrong:

- identity: the ego kart has another name; or the kart asked about was taken for another: the ego answer of the picture
  names it, or all answers about its place are true of one other kart in view. An answer that is true of no other kart
  cannot come from taking one for another. (A wrong name of the ego kart alone proves nothing: it stands in the middle,
  whatever it is called.)
- relation: the place is wrong and no other kart explains it; or a relative count is just what the picture's own answers
  about each kart add up to, so that it was counted right of karts put on the wrong side.
- counting: any other wrong count.
"""

from dataclasses import dataclass

from stkvlm_lib.grammar.scene import STRICT_RULES


@dataclass(frozen=True)
class Cause:
    """what: when an error has it; lift: what would lift it. of_question: it is known before the answer."""

    name: str
    what: str
    lift: str
    of_question: bool = False


CAUSES: dict[str, Cause] = {
    cause.name: cause
    for cause in (
        Cause(
            "no answer",
            "the answer is none of the family's",
            "Answer from the family's closed set, or train the words that are missing.",
        ),
        Cause("unknown question", "the wording belongs to no family", "Add the family, or reword the question."),
        Cause("track", "another track is named", "More races and directions of the tracks that are confused."),
        Cause(
            "pixel",
            "the truth hangs on one pixel of the rule",
            "Nothing in the model: decline such questions, as the strict rules do.",
            True,
        ),
        Cause(
            "small",
            f"a kart that matters is under {STRICT_RULES.min_side} px",
            "Larger pictures, or a base with smaller patches.",
            True,
        ),
        Cause(
            "hidden",
            "a kart that matters is mostly covered",
            "Training pictures with covered karts; the limit is what the picture still shows.",
            True,
        ),
        Cause(
            "near level",
            f"two centres are under {STRICT_RULES.level:.0f} px from level",
            "A base that learns the places of karts to the pixel.",
            True,
        ),
        Cause(
            "unseen line-up",
            "train has no such kart on this track",
            "More training races with random line-ups, so that the track does not stand for the kart.",
            True,
        ),
        Cause(
            "identity",
            "one kart is taken for another",
            "A base that has learnt the names longer, on more line-ups, lights and distances.",
        ),
        Cause(
            "counting",
            "plain karts are miscounted",
            "Training on counts and places together, until the count follows from the places.",
        ),
        Cause(
            "relation",
            "the kart's place is wrong, and no other kart explains it",
            "More training on places relative to the ego kart, mirrored pictures among it.",
        ),
    )
}
"""All causes in the order of their rules."""
OF_QUESTION = tuple(name for name, cause in CAUSES.items() if cause.of_question)
