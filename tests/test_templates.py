"""Templates: HTML is escaped, Markdown is not, and a value that is missing is an error."""

import pytest
from jinja2 import UndefinedError

from stkvlm_lib.templates import render

EVIL = "<b>1 & 2</b>"


@pytest.fixture
def template(tmp_path):
    """A template of a name with a text."""

    def write(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_html_escapes_every_value_and_markdown_none(template):
    assert render(template("a.html", "<p>{{ name }}</p>\n"), name=EVIL) == "<p>&lt;b&gt;1 &amp; 2&lt;/b&gt;</p>\n"
    assert render(template("a.md", "# {{ name }}\n"), name=EVIL) == f"# {EVIL}\n"


def test_lines_of_commands_leave_no_empty_lines_in_markdown(template):
    source = "- a\n  {% for name in names %}\n- {{ name }}\n  {% endfor %}\n- z\n"
    assert render(template("a.md", source), names=["b", "c"]) == "- a\n- b\n- c\n- z\n"
    assert render(template("a.html", "{% if wide %}\n  <p>\n{% endif %}"), wide=True) == "\n  <p>\n"


@pytest.mark.parametrize("name", ["a.html", "a.md"])
@pytest.mark.parametrize("text", ["{{ absent }}", "{{ given.absent }}", "{% for x in absent %}{% endfor %}"])
def test_a_value_that_is_not_given_is_an_error_that_names_it(template, name, text):
    with pytest.raises(UndefinedError, match="absent"):
        render(template(name, text), given={"a": 1})


def test_a_template_can_include_its_neighbours(template):
    template("part.html", "{{ name }}!")
    assert render(template("a.html", "{% include 'part.html' %}"), name="<i>") == "&lt;i&gt;!"
