"""One offline HTML page on predictions, their blend and its calibration.

`inputs`                What a report is made of: checked, in one order.
`slices`                Parts of the rows to measure apart.
`findings`              Everything that the page says, as values.
`measuring`             What these values are computed by.
`verdict`               The headline.
`markup`                Markup that cannot forget to escape.
`style`                 The page's style sheet.
`figures`               Figures as inline SVG.
`cells`                 Pieces that all sections share.
`sections`              Sections on the blend and how good it is.
`calibration_sections`  Sections on calibration and confusion.
`battle_sections`       Sections on slices, swaps and texts; the method.
`page`                  `write_report`.
"""

from lmsys_ensemble.report.page import write_report

__all__ = ["write_report"]
