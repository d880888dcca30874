from lmsys_ensemble.report import write_report
from lmsys_ensemble.report.battle_sections import PREVIEW_CHARACTERS
from tests.predicted import battle_table, predictions
from tests.report.conftest import QUICK, cells_of, parse, section_of, shown, text_of


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
