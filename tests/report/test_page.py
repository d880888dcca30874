"""The page as a browser sees it: structure, escaping, numbers."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.cli import main
from lmsys_ensemble.report import write_report
from lmsys_ensemble.schema import THREE_WAY
from tests.predicted import battle_table, predictions, probability_table, row_ids
from tests.report.conftest import QUICK, cells_of, parse, section_of, shown, text_of

ALL = ["short", "blend", "methods", "calibration", "confusion", "slices", "swaps", "worst", "measured"]


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
    assert len(figures) == 1 + 1 + 3 + 2 * 3 + 4
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
    assert not any("mixed up" in warning for warning in json.loads(out)["warnings"])
    blend = section_of((folder / "report.html").read_text(), "blend")
    for name, weight in zip(("m0", "m1"), given.weights_, strict=True):
        assert cells_of(blend, name)[0][0] == shown(weight)
    code, out, _ = run(capsys, *turned, "--swapped", "m0_swapped.csv", "m1_swapped.csv", "--out", "r.html", "--json")
    assert any("m1 and m0 look mixed up" in warning for warning in json.loads(out)["warnings"])
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
