from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.report.markup import Markup, details, element, escape, join, table


@given(st.text(st.characters(codec=None, categories=None)))
def test_whatever_is_put_in_comes_out_as_text_and_nothing_else(text):
    page = element("p", text, title=text)
    parsed = ElementTree.fromstring(page)
    assert len(parsed) == 0
    shown = parsed.text or ""
    assert len(shown) == len(text.replace("\r\n", "\n"))
    kept = [(a, b) for a, b in zip(shown, text.replace("\r\n", "\n"), strict=True) if a != "\ufffd"]
    assert all(a == b or (b == "\r" and a == "\n") for a, b in kept)


def test_markup_is_put_in_as_it_is_and_text_is_escaped():
    inner = element("b", "<i>")
    assert inner == "<b>&lt;i&gt;</b>"
    assert element("p", inner, " & ") == "<p><b>&lt;i&gt;</b> &amp; </p>"
    assert join(["<", Markup("<br/>")]) == "&lt;<br/>"
    assert escape(escape("<")) == "&lt;"


def test_joining_plain_strings_makes_text_of_markup_again():
    assert not isinstance(element("b", "x") + "<i>", Markup)


def test_attributes_are_escaped_and_numbers_are_short():
    shown = element("line", x1=1 / 3, y1=12345.6, class_='a"b', stroke_width=2)
    assert shown == '<line x1="0.33" y1="12346" class="a&quot;b" stroke-width="2"/>'


def test_an_empty_element_is_closed():
    assert element("div") == "<div></div>"
    assert element("meta", charset="utf-8") == '<meta charset="utf-8"/>'


def test_a_table_is_a_real_table():
    parsed = ElementTree.fromstring(table("Caption", ["", "one"], [["<row>", element("td", "1")], ["b", "2"]]))
    assert parsed.get("aria-label") == "Caption"
    (inner,) = parsed
    assert [child.tag for child in inner] == ["caption", "thead", "tbody"]
    assert [cell.get("scope") for cell in inner.find("tbody").iter("th")] == ["row", "row"]
    assert ["".join(cell.itertext()) for cell in inner.iter("td")] == ["1", "2"]
    assert inner.find("tbody/tr/th").text == "<row>"


@pytest.mark.parametrize("content", ["x < y", Markup("<p>x</p>")])
def test_details_open_on_a_summary(content):
    parsed = ElementTree.fromstring(details("more & more", content))
    assert parsed[0].tag == "summary"
