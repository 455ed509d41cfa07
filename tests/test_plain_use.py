"""The chat template for others lays a question out as this project's own prompt does."""

import ast
import copy
import json

import pytest

from stkvlm_lib.config import ROOT
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.vlm.base_vlm import Prompt, find_base, load_processor
from stkvlm_lib.vlm.plain_use import lines_of_adapter, lines_of_merged, plain_template


@pytest.fixture(scope="module")
def processors():
    """Ours, and the same with the template for others."""
    ours = load_processor(find_base())
    theirs = copy.copy(ours)
    theirs.chat_template = plain_template(ours.chat_template)
    return ours, theirs


def laid_out(processor, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def test_every_way_to_ask_is_laid_out_in_its_plain_form(processors):
    ours, theirs = processors
    own_words = json.loads((ROOT / "benchmarks" / "own_words.json").read_text(encoding="utf-8"))
    asked = [question for questions in own_words.values() for question in questions if isinstance(question, str)]
    asked += [wording for family in FAMILIES.values() for wording in family.wordings]
    asked += [
        "What's SARA the Wizard's color? It isn't  gray!",
        "whos in the center, sarathewizard?",
        "Won't TUX, can't Sara-the-Racer?  We're at Black_Forest.",
        "   ",
    ]
    assert len(asked) > 200
    for question in asked:
        assert laid_out(theirs, question) == laid_out(ours, plain(question)), question


def test_a_model_that_is_saved_with_it_is_prompted_as_before(processors):
    ours, theirs = processors
    prompts = [Prompt(processor) for processor in processors]
    for question in ("What kart is the ego car?", "Who's {kart}?"):
        assert prompts[0].question(question) == prompts[1].question(question)
    assert prompts[0].prefix == prompts[1].prefix
    assert plain_template(theirs.chat_template) == theirs.chat_template != ours.chat_template


def test_what_the_assistant_says_and_bare_texts_pass(processors):
    _, theirs = processors
    said = [{"role": "assistant", "content": [{"type": "text", "text": "It's TUX."}]}]
    assert "It's TUX." in theirs.apply_chat_template(said)
    with_list = theirs.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "what is up"}]}])
    assert theirs.apply_chat_template([{"role": "user", "content": "What's up?"}]) == with_list


def test_the_lines_are_ten_and_name_the_folders():
    for lines, words in ((lines_of_merged("here"), ["here"]), (lines_of_adapter("a/base", "b/it"), ["a/base", "b/it"])):
        ast.parse(lines)
        assert all(f'"{word}"' in lines for word in words)
        assert len([line for line in lines.splitlines() if line and "import" not in line]) <= 10
