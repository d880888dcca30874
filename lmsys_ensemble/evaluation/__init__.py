"""Measures, their intervals, and splits that keep groups together.

`folds`       Splits that never divide a group.
`regression`  Damped Newton for small convex problems; multinomial regression.
`intervals`   Standard errors by cluster, and the bootstrap over groups.
`metrics`     Log loss, accuracy, Brier score, calibration error and others.
`evaluate`    All measures of a prediction in one table, overall and by slice.
"""
