import re

from tests.report.conftest import parse


def test_the_page_follows_the_readers_colours_and_screen(whole):
    assert "prefers-color-scheme: dark" in whole[1]
    assert 'name="viewport"' in whole[1]


def test_tables_that_are_wider_than_the_screen_look_so(whole):
    style = parse(whole[1]).find("head/style").text
    (rule,) = re.findall(r"\.scroll \{[^}]*\}", style)
    assert "overflow-x: auto" in rule
    # A shade at the right edge, covered by what moves with the content where its end is in sight.
    assert re.search(r"--paper.*local,\s*linear-gradient\(to left, var\(--shade\), transparent\)", rule)
    assert re.search(r"\.scroll tbody th \{ position: sticky; left: 0;", style)
    assert all(box.get("tabindex") == "0" for box in parse(whole[1]).iter("div") if box.get("class") == "scroll")
