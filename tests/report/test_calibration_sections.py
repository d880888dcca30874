from tests.report.conftest import section_of, text_of


def test_the_confusion_matrix_counts_every_row_once(whole):
    findings, page = whole
    labels, predicted = findings.inputs.labels.argmax(axis=1), findings.blend.probabilities.argmax(axis=1)
    rows = section_of(page, "confusion").findall(".//tbody/tr")
    for truth, row in enumerate(rows):
        counts = [int(text_of(small).split()[0]) for small in row.iter("small")]
        assert counts == [int(((labels == truth) & (predicted == other)).sum()) for other in range(3)]
        assert row.findall("td")[-1].text == str((labels == truth).sum())
