"""The page as a browser sees it: structure, escaping, numbers."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.cli import main
from lmsys_ensemble.report import write_report
from lmsys_ensemble.report.battle_sections import PREVIEW_CHARACTERS
from lmsys_ensemble.schema import THREE_WAY
from tests.predicted import battle_table, predictions, probability_table, row_ids
from tests.report.conftest import QUICK

ALL = ["short", "blend", "methods", "calibration", "confusion", "slices", "swaps", "worst", "measured"]


def parse(page):
    """Parse a page, which is well-formed XML on purpose."""
    start, _, rest = page.partition("\n")
    assert start == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def text_of(element):
    return "".join(element.itertext())


def section_of(page, name):
    (found,) = [section for section in parse(page).iter("section") if section.get("id") == name]
    return found


def cells_of(section, row_name):
    """Return the cells of the rows of that name, each without its interval."""
    return [
        [(cell.text or "").strip() for cell in row.findall("td")]
        for row in section.iter("tr")
        if (head := row.find("th")) is not None and text_of(head) == row_name
    ]


def test_all_sections_are_there_and_the_contents_point_at_them(whole):
    root = parse(whole[1])
    assert [section.get("id") for section in root.iter("section")] == ALL
    assert [link.get("href") for link in root.iter("a")] == [f"#{name}" for name in ALL]
    assert root.find("head/title").text == "Blend report"
    assert root.get("lang") == "en"


def test_nothing_is_loaded_from_anywhere(whole):
    root = parse(whole[1])
    assert "http" not in whole[1].replace("http-equiv", "")
    tags = {element.tag for element in root.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "use", "image"}
    style = root.find("head/style").text
    assert "url(" not in style
    assert "@import" not in style
    for element in root.iter():
        assert not any(name.startswith("on") or name in {"src", "srcset", "xlink:href"} for name in element.attrib)
    policy = [meta.get("content") for meta in root.iter("meta") if meta.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_figures_and_tables_can_be_read_without_seeing(whole):
    root = parse(whole[1])
    figures = [svg for svg in root.iter("svg") if svg.get("aria-hidden") != "true"]
    assert len(figures) == 1 + 1 + 3 + 2 * 3 + 3
    for svg in figures:
        assert svg.get("role") == "img"
        assert svg.get("aria-label")
        assert svg.find("title").text
    for table in root.iter("table"):
        assert text_of(table.find("caption"))
        assert all(head.get("scope") for head in table.iter("th"))
        widths = {len(list(row)) for row in table.iter("tr")}
        assert len(widths) == 1


def test_ids_are_unique_so_that_links_work(whole):
    ids = [element.get("id") for element in parse(whole[1]).iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_the_page_follows_the_readers_colours_and_screen(whole):
    assert "prefers-color-scheme: dark" in whole[1]
    assert 'name="viewport"' in whole[1]


def shown(value):
    return f"{value:.4f}".replace("-", "−")


def test_the_numbers_on_the_page_are_those_computed(whole):
    findings, page = whole
    summary = section_of(page, "short")
    for model in findings.models:
        ((loss, difference, accuracy),) = cells_of(summary, model.name)
        assert loss == shown(model.figure("log_loss")[0])
        assert difference == ("–" if model.kind == "equal" else shown(model.to_equal.mean))
        assert accuracy == f"{model.figure('accuracy')[0]:.3f}"
    tiles = [text_of(tile.find("b")) for tile in summary.iter("div") if "tile" in (tile.get("class") or "").split()]
    best = min(model.figure("log_loss")[0] for model in findings.members)
    values = [best, *(model.figure("log_loss")[0] for model in (findings.equal, findings.blend))]
    assert tiles == [*map(shown, values), shown(findings.blend.to_equal.mean)]
    blend = section_of(page, "blend")
    for name, weight in zip(("m0", "m1"), findings.blender.weights_, strict=True):
        assert cells_of(blend, name)[0][0] == shown(weight)
    methods = [text_of(row.findall("td")[1]) for row in section_of(page, "methods").findall(".//tbody/tr")]
    assert methods == [shown(value) for value in findings.methods["log_loss"]]


def test_the_two_estimates_stand_side_by_side_with_their_meaning(whole):
    findings, page = whole
    short = section_of(page, "short")
    assert findings.is_nested
    ((nested, difference, means),) = cells_of(short, "nested")
    assert nested == shown(findings.blend.figure("log_loss")[0])
    assert difference == shown(findings.blend.to_equal.mean)
    assert "estimate that this page goes by" in means
    ((plain, difference, means),) = cells_of(short, "plain")
    chosen = findings.methods[findings.methods["selected"]].iloc[0]
    assert (plain, difference) == (shown(chosen["log_loss"]), shown(chosen["difference"]))
    assert "as settled beforehand" in means
    assert "These are plain estimates" in text_of(section_of(page, "methods"))
    assert "log loss, blend, nested estimate" in text_of(short)


@pytest.mark.parametrize("blender", [Blender("log"), Blender(weights=[2, 1])])
def test_what_was_not_chosen_has_one_estimate(given, tmp_path, blender):
    members, labels, _ = given
    write_report(tmp_path / "r.html", members, labels, blender=blender)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert cells_of(section_of(page, "short"), "plain") == []
    assert "nested" not in text_of(section_of(page, "short"))
    assert "(what auto would choose)" in text_of(section_of(page, "methods"))
    assert "(chosen)" not in text_of(section_of(page, "methods"))


def test_the_headline_says_why_only_the_average_was_tried(tmp_path):
    members, labels = predictions(60)
    write_report(tmp_path / "few.html", members, labels)
    headline = section_of((tmp_path / "few.html").read_text(encoding="utf-8"), "short").find("p")
    assert "With 60 groups of rows methods cannot be told apart, so the equal average is kept" in text_of(headline)
    assert "better beyond chance" not in text_of(headline)


def test_the_headline_of_an_average_that_other_folds_did_not_choose_does_not_contradict_itself(tmp_path):
    # On all rows the average is kept; some folds take another method.
    members, labels = predictions(220, noises=(0.5, 1.2), seed=2)
    findings = write_report(tmp_path / "r.html", members, labels)
    assert findings.blender.method_ == "equal"
    assert {one.method_ for one in findings.cross_fit.blenders} > {"equal"}
    headline = text_of(section_of((tmp_path / "r.html").read_text(encoding="utf-8"), "short").find("p"))
    assert "The blend is: equal average" in headline
    assert "choosing anew without each fold, which took another method in some" in headline
    assert "is the better choice" not in headline


def test_a_member_that_is_the_labels_is_called_a_leak_before_all_else(tmp_path):
    members, labels = predictions(120)
    findings = write_report(tmp_path / "r.html", {**members, "truth": np.eye(3)[labels]}, labels)
    assert findings.leaks == ("truth",)
    first = section_of((tmp_path / "r.html").read_text(encoding="utf-8"), "short").find("p")
    assert first.get("class") == "alert"
    assert text_of(first).startswith("These figures mean nothing, because a member knows the labels (a leak): truth.")
    assert any(warning.startswith("truth is a leak") for warning in findings.warnings)


def test_tables_that_are_wider_than_the_screen_look_so(whole):
    style = parse(whole[1]).find("head/style").text
    (rule,) = re.findall(r"\.scroll \{[^}]*\}", style)
    assert "overflow-x: auto" in rule
    # A shade at the right edge, covered by what moves with the content where its end is in sight.
    assert re.search(r"--paper.*local,\s*linear-gradient\(to left, var\(--shade\), transparent\)", rule)
    assert re.search(r"\.scroll tbody th \{ position: sticky; left: 0;", style)
    assert all(box.get("tabindex") == "0" for box in parse(whole[1]).iter("div") if box.get("class") == "scroll")


def test_the_confusion_matrix_counts_every_row_once(whole):
    findings, page = whole
    labels, predicted = findings.inputs.labels.argmax(axis=1), findings.blend.probabilities.argmax(axis=1)
    rows = section_of(page, "confusion").findall(".//tbody/tr")
    for truth, row in enumerate(rows):
        counts = [int(text_of(small).split()[0]) for small in row.iter("small")]
        assert counts == [int(((labels == truth) & (predicted == other)).sum()) for other in range(3)]
        assert row.findall("td")[-1].text == str((labels == truth).sum())


def test_parts_and_swaps_are_on_the_page(whole):
    findings, page = whole
    parts = section_of(page, "slices")
    for rows in findings.slices.values():
        for row in rows:
            assert [str(row.n_rows), shown(row.equal), shown(row.blend)] in [
                cells[:3] for cells in cells_of(parts, row.name)
            ]
    for swap in findings.swaps:
        ((flips, _, _, averaged, _),) = cells_of(section_of(page, "swaps"), swap.model.name)
        assert flips == f"{100 * swap.model.figure('swap_flip_rate')[0]:.1f} %"
        assert averaged == shown(swap.averaged)


def test_the_page_says_how_it_was_measured(whole):
    words = text_of(section_of(whole[1], "measured"))
    assert "The blend is measured out of fold: the rows were dealt into 5 folds" in words
    assert "the choice of the method included" in words
    assert "200 groups that are never divided" in words
    assert "1,000 bootstrap resamples" in words


def test_the_same_input_gives_the_same_file(whole, given, tmp_path):
    members, labels, more = given
    write_report(tmp_path / "again.html", members, labels, **more)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == whole[1]


def test_it_works_with_members_and_labels_alone(given, tmp_path):
    members, labels, _ = given
    write_report(tmp_path / "bare.html", members, labels, title="Bare & simple", n_worst=0, blender=QUICK)
    page = (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert [section.get("id") for section in parse(page).iter("section")] == [
        name for name in ALL if name not in {"slices", "swaps", "worst"}
    ]
    assert parse(page).find("body/header/h1").text == "Bare & simple"


EVIL = "</style><script>alert('x')</script><img src=x onerror=alert(1)>\"'&\x00\x1b\ud800\u202e"


def test_texts_ids_names_and_sources_cannot_become_markup(tmp_path):
    members, labels = predictions(60)
    table = battle_table(60, prompt="p").assign(source=EVIL.replace("\ud800", ""))
    table["id"] = [f"<script>{row}</script>" for row in range(60)]
    for name in ("prompt", "response_a", "response_b"):
        table[name] = [[EVIL * 200] for _ in range(60)]
    renamed = {f"{EVIL} {name}": member for name, member in members.items()}
    findings = write_report(tmp_path / "evil.html", renamed, labels, battles=table, title=EVIL, blender=QUICK)
    page = (tmp_path / "evil.html").read_text(encoding="utf-8")
    root = parse(page)
    tags = {element.tag for element in root.iter()}
    assert not tags & {"script", "img"}
    assert "<script" not in page
    assert root.find("body/header/h1").text.startswith("</style><script>alert('x')</script>")
    first = findings.worst[0]
    article = next(root.iter("article"))
    assert f"<script>{first}</script>" in text_of(article.find("h3"))
    whole = [element for element in article.iter("div") if element.get("class") == "text"]
    assert any("<script>alert('x')</script>" in text_of(element) for element in whole)


def test_long_texts_are_cut_and_whole_on_a_click(tmp_path):
    members, labels = predictions(60)
    table = battle_table(60)
    table["response_a"] = [["word " * 200 + "the end"] for _ in range(60)]
    table["response_b"] = [["x" * 30_000] for _ in range(60)]
    table["prompt"] = [["  "] for _ in range(60)]
    write_report(tmp_path / "long.html", members, labels, battles=table, n_worst=1, blender=QUICK)
    article = next(parse((tmp_path / "long.html").read_text(encoding="utf-8")).iter("article"))
    opened = {text_of(part.find("summary")): text_of(part) for part in article.iter("details")}
    assert set(opened) == {"the whole text, 1,007 characters", "the whole text, 30,000 characters, cut after 20,000"}
    assert opened["the whole text, 1,007 characters"].endswith("the end")
    previews = [text_of(div) for div in article.iter("div") if div.get("class") == "text" and "…" in text_of(div)]
    assert all(len(preview) <= PREVIEW_CHARACTERS + 2 for preview in previews)
    assert "(empty)" in text_of(article)


def test_turns_are_numbered(whole):
    findings, page = whole
    battle = findings.inputs.battles[int(findings.worst[0])]
    article = next(parse(page).iter("article"))
    if len(battle.prompt) > 1:
        assert f"[turn {len(battle.prompt)}]" in text_of(article)
    assert battle.prompt[0] in text_of(article)


# --- the command ---


@pytest.fixture
def folder(tmp_path, monkeypatch, given):
    """Return a working folder with all files that a report can take, in orders of their own."""
    monkeypatch.chdir(tmp_path)
    members, labels, more = given
    for name, member in members.items():
        probability_table(member).sample(frac=1, random_state=1).to_csv(f"{name}.csv", index=False)
        probability_table(more["swapped"][name]).to_csv(f"{name}_swapped.csv", index=False)
    y = pd.DataFrame({"id": row_ids(len(labels)), "winner": np.array(THREE_WAY.classes)[labels]})
    y.assign(group=more["groups"]).to_csv("y.csv", index=False)
    more["battles"].to_csv("battles.csv", index=False)
    return tmp_path


MEMBERS = ("--probabilities", "m0.csv", "m1.csv", "--labels", "y.csv")


def run(capsys, *arguments):
    code = main(["report", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_writes_the_page_that_the_function_writes(folder, capsys, whole):
    code, out, err = run(
        capsys, *MEMBERS, "--battles", "battles.csv", "--swapped", "m0_swapped.csv", "m1_swapped.csv",
        "--out", "report.html", "--worst-out", "worst.csv",
    )  # fmt: skip
    assert (code, err) == (0, "")
    numbers = re.compile(r"\d+\.\d+")
    expected, page = (numbers.findall(text) for text in (whole[1], (folder / "report.html").read_text()))
    assert page == expected
    assert f"blend: log loss {whole[0].blend.figure('log_loss')[0]:.4f}" in out
    assert len(pd.read_csv("worst.csv")) == 10


def test_the_command_takes_a_blender_and_prints_json(folder, capsys):
    assert main(["blend", *MEMBERS, "--out", "blender.json", "--method", "log"]) == 0
    capsys.readouterr()
    code, out, _ = run(capsys, *MEMBERS, "--blender", "blender.json", "--out", "report.html", "--json")
    assert code == 0
    values = json.loads(out)
    assert [model["name"] for model in values["models"]] == ["class prior", "m0", "m1", "equal average", "blend"]
    assert "logarithmic pool" in (folder / "report.html").read_text()


def test_members_blender_and_swapped_files_are_matched_by_name(folder, capsys):
    assert main(["blend", *MEMBERS, "--out", "blender.json", "--method", "log"]) == 0
    given = Blender.load("blender.json")
    capsys.readouterr()
    turned = ("--probabilities", "m1.csv", "m0.csv", "--labels", "y.csv", "--blender", "blender.json")
    swapped = ("--swapped", "m0=m0_swapped.csv", "m1=m1_swapped.csv")
    code, out, _ = run(capsys, *turned, *swapped, "--out", "report.html", "--json")
    assert code == 0
    assert not any("exchanged" in warning for warning in json.loads(out)["warnings"])
    blend = section_of((folder / "report.html").read_text(), "blend")
    for name, weight in zip(("m0", "m1"), given.weights_, strict=True):
        assert cells_of(blend, name)[0][0] == shown(weight)
    code, out, _ = run(capsys, *turned, "--swapped", "m0_swapped.csv", "m1_swapped.csv", "--out", "r.html", "--json")
    assert any("m1 and m0 look exchanged" in warning for warning in json.loads(out)["warnings"])
    for wrong, message in (
        (("m0=m0_swapped.csv", "m1_swapped.csv"), "give all files as name=file, or none"),
        (("m0=m0_swapped.csv", "x=m1_swapped.csv"), "--swapped is of 'm0', 'x', --probabilities of 'm1', 'm0'"),
    ):
        code, _, err = run(capsys, *turned, "--swapped", *wrong, "--out", "r.html")
        assert code == 2
        assert message in " ".join(err.split())
    renamed = ("--probabilities", "x=m0.csv", "m1.csv", "--labels", "y.csv", "--blender", "blender.json")
    code, _, err = run(capsys, *renamed, "--out", "r.html")
    assert code == 2
    assert "'m0' is missing, 'x' is unknown to it" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "report.txt"), "--out must end in .html or .htm"),
        (("--out", "no/report.html"), "does not exist"),
        (("--out", "r.html", "--swapped", "m0_swapped.csv"), "--swapped has 1 files, --probabilities 2"),
        (("--out", "r.html", "--battles", "x.csv"), "no file x.csv"),
        (("--out", "r.html", "--blender", "x.json"), "no blender x.json"),
        (("--out", "r.html", "--worst-out", "w.html"), "--worst-out must end in .csv, .tsv"),
        (("--out", "r.html", "--worst", "-3"), "n_worst must be at least 0"),
        (("--out", "r.html", "--fitted-elsewhere"), "pass a fitted one"),
    ],
)
def test_a_mistake_is_one_readable_error(folder, capsys, arguments, message):
    code, out, err = run(capsys, *MEMBERS, *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (folder / "r.html").exists()
