"""How others ask a model of this project: with Transformers and PEFT alone, in ten lines, questions in any spelling.

Training and answering read a question in its plain form (`grammar.spelling`). Here that form becomes a part of the chat
template, so that whoever applies the template asks as this project does. Nothing heavy is imported here.
"""

import json
import re

from stkvlm_lib.grammar.names import KARTS, TRACKS
from stkvlm_lib.grammar.spelling import plain

_ASK = """\
{imports}from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("{processor}", backend="pil")
model = {model}

def answer(picture, question):
    content = [{{"type": "image", "image": Image.open(picture).convert("RGB")}}, {{"type": "text", "text": question}}]
    options = dict(add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    inputs = processor.apply_chat_template([{{"role": "user", "content": content}}], **options).to(model.device)
    written = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return processor.decode(written, skip_special_tokens=True).strip()

print(answer("picture.jpg", "What kart is the ego car?"))
"""


def lines_of_merged(folder: str) -> str:
    """Python that asks a model lying in one folder."""
    return _ASK.format(imports="", processor=folder, model=f'AutoModelForImageTextToText.from_pretrained("{folder}")')


def lines_of_adapter(base: str, adapter: str) -> str:
    """Python that asks a base with an adapter, from two folders or hub names."""
    model = f'PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained("{base}"), "{adapter}")'
    return _ASK.format(imports="from peft import PeftModel\n", processor=adapter, model=model)


_VERBS = ["is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "could", "would", "should", "wo"]
_FORMS = (
    *(f"{word}{mark}s" for word in ("what", "who", "where", "how", "that", "there") for mark in ("'", "")),
    *(f"{word}'s" for word in ("which", "here", "it")),
    *(f"{word}'re" for word in ("who", "what", "how", "they", "we", "you")),
    *(f"{word}'{end}" for word in ("i", "you", "we", "they", "it", "who", "what") for end in ("ve", "ll", "d")),
    *(f"{verb}n't" for verb in _VERBS),
    *("i'm", "can't", "color", "colors", "colored", "gray", "grays", "center", "centers"),
    *(name.replace("_", between) for name in (*KARTS, *TRACKS) if "_" in name for between in (" ", "")),
)
"""Spellings that are not yet plain when capitals and punctuation are gone; what each becomes `plain` says."""

_PLAIN_TEMPLATE = """\
{{%- set spelled = {spelled} -%}}
{{%- set plain = namespace(messages=[], parts=[], text="") -%}}
{{%- for message in messages -%}}
{{%- set said = message["content"] -%}}
{{%- set plain.parts = [] -%}}
{{%- for part in ([{{"type": "text", "text": said}}] if said is string else said) -%}}
{{%- if part["type"] == "text" and message["role"] == "user" -%}}
{{%- set plain.text = "" -%}}
{{%- for c in part["text"] | lower -%}}
{{%- set plain.text = plain.text ~ (c if c.isalnum() or c in "_{{}}" else " ") -%}}
{{%- endfor -%}}
{{%- set plain.text = " " ~ plain.text.split() | join(" ") ~ " " -%}}
{{%- for form, to in spelled -%}}
{{%- set plain.text = plain.text.replace(" " ~ form ~ " ", " " ~ to ~ " ") -%}}
{{%- endfor -%}}
{{%- set plain.parts = plain.parts + [{{"type": "text", "text": plain.text.strip()}}] -%}}
{{%- else -%}}
{{%- set plain.parts = plain.parts + [part] -%}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- set plain.messages = plain.messages + [{{"role": message["role"], "content": plain.parts}}] -%}}
{{%- endfor -%}}
{{%- set messages = plain.messages -%}}
"""


def plain_template(template: str) -> str:
    """A chat template that lays out what a user says in its plain form; one that does so already stays as it is."""
    pairs = {" ".join(re.findall(r"\w+", form.lower())): plain(form) for form in _FORMS}
    spelled = [[form, to] for form, to in pairs.items() if form != to]
    head = _PLAIN_TEMPLATE.format(spelled=json.dumps(spelled))
    return template if template.startswith(head) else head + template
