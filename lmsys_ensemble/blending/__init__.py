"""Combining the probabilities of several scorers.

`checks`       What comes in is checked once: members, weights, temperatures.
`members`      How members are passed and what they are called; whose weight is whose.
`labels`       Labels as class positions, names or shares, brought to one array.
`temperature`  Temperature and class biases of one array of probabilities.
`weights`      Weights on the simplex, by greedy selection, as exponents, as matrices.
`blend`        A fitted blend as a value: what turns members into one prediction.
`links`        From two rewards to the logits of classes, and fitting it.
`spec`         What to fit: methods, calibrations, which go together.
`selection`    Choosing a method by cross-fitting; equal weights if in doubt.
`diagnosis`    Signs that a member's rows or columns are not in order.
`classifier`   What makes a blender a scikit-learn classifier.
`stored`       The JSON file that a blender is saved in.
`settings`     What a blender's settings mean: what there is to fit, and how.
`blender`      `Blender`: fit, predict_proba, save, load.
`crossfit`     A blender's predictions for rows that it was not fitted on.
`explanation`  What a blender did and why, in words.
"""
