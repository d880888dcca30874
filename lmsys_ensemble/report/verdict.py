"""The headline of the page: what the blend is worth, and which of its two estimates says what."""

from lmsys_ensemble.blending.explanation import describe_difference, describe_method
from lmsys_ensemble.report.cells import difference_cell
from lmsys_ensemble.report.findings import Findings
from lmsys_ensemble.report.markup import Markup, table


def describe_blend(findings: Findings) -> str:
    """Name the method of the blend."""
    blender = findings.blender
    if blender.weights is not None:
        return "weights fixed by hand"
    return describe_method(blender.method_, blender.calibration_)


def verdict(findings: Findings) -> str:
    """Say in a few sentences whether blending helped, and why the blend is what it is where it is the plain average."""
    change = findings.blend.to_equal
    same = change.mean == 0 and change.low == change.high
    is_average = findings.blender.weights is None and describe_blend(findings) == describe_method("equal", "none")
    parts = [f"The blend is: {describe_blend(findings)}."]
    if findings.leaks:
        names = ", ".join(findings.leaks)
        parts.insert(0, f"These figures mean nothing, because a member knows the labels (a leak): {names}.")
    if is_average:
        parts.append(findings.why)
    if same:
        parts.append("On these rows it is the same as the equal average.")
    elif is_average:
        parts.append(
            "It is measured by choosing anew without each fold, which took another method in some: so measured it has "
            f"a log loss of {findings.blend.figure('log_loss')[0]:.4f}, {describe_difference(change)}."
        )
    else:
        parts.append(
            f"Its log loss on rows that it was not fitted on is {findings.blend.figure('log_loss')[0]:.4f}; "
            f"against the equal average of all members that is {describe_difference(change)}."
        )
        if change.low > 0:
            parts.append("The equal average, which has nothing to fit, is the better choice.")
    return " ".join(parts).replace("-0", "\N{MINUS SIGN}0")


def estimates(findings: Findings) -> Markup | None:
    """Put the two estimates of a blend whose method was chosen side by side, with what each of them means.

    None where there is only one, or both are the same.
    """
    plain = findings.plain
    nested = findings.blend.to_equal
    if plain is None or (nested.mean, nested.low, nested.high) == (plain.mean, plain.low, plain.high):
        return None
    equal = findings.equal.figure("log_loss")[0]
    rows = [
        ["nested", f"{findings.blend.figure('log_loss')[0]:.4f}", difference_cell(nested),
         "Method and numbers were both chosen without the row's fold. What to expect of this way of blending on new "
         "rows; the estimate that this page goes by."],
        ["plain", f"{equal + plain.mean:.4f}", difference_cell(plain),
         "The method is taken as settled beforehand, only its numbers were fitted without the row's fold. It does not "
         "count that the method was chosen by these very rows; the comparison of methods below is made of such."],
    ]  # fmt: skip
    caption = "Two estimates of the blend, both on rows that it was not fitted on, with 95 % intervals"
    return table(caption, ["estimate", "log loss", "minus equal average", "what it means"], rows, "numbers words")
