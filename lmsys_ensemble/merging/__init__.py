"""Trained adapters become one model: averaged, added to their base, compressed.

`averaging`    The mean of LoRA adapters, as one adapter.
`parts`        Adapters that are to become one, checked for what they must have in common.
`comparison`   What merging costs, measured on labelled rows.
`cards`        Model cards of what was made out of trained adapters.
`adapters`     Adapters of folds become one, measured against the mean of their probabilities.
`compression`  Weights rounded to 8 or 4 bits, in the format of compressed-tensors.
`calibration`  Rounding that looks at what layers are given.
`weights`      Base and adapter, added up one layer at a time.
`export`       A trained adapter and its base become one plain transformers folder.
"""

import lmsys_ensemble.modeling  # noqa: F401 - quietens bitsandbytes, before peft imports that
