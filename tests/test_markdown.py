"""Text from outside stays text in Markdown."""

import pytest

from nas.report.markdown import block, code, table, text


@pytest.mark.parametrize(
    ("outside", "shown"),
    [
        ("[a](http://x)", r"\[a\](http&#58;//x)"),
        ("![a](x.png)", r"!\[a\](x.png)"),
        ("`rm`", r"\`rm\`"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("a | b", r"a \| b"),
        (r"\[a](b)", r"\\\[a\](b)"),
        ("www.example.com", "www&#46;example.com"),
        ("two\nlines", "two lines"),
        ("python:tiny_net:tiny 50%", "python:tiny_net:tiny 50%"),
    ],
)
def test_text_is_no_markup(outside, shown):
    assert text(outside) == shown


def test_code_is_not_ended_by_what_is_in_it():
    assert code("plain") == "`plain`" and code("a`b") == "`` a`b ``"
    assert block("a\n```\nb") == "````\na ``` b\n````" and block("plain") == "```\nplain\n```"


def test_a_cell_ends_no_table():
    assert table(["a", "b"], [["x | y", "[z]"]]).splitlines()[-1] == r"| x \| y | \[z\] |"
