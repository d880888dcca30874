from tests.report.conftest import cells_of, section_of, shown, text_of


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
