"""Training of LoRA adapters and heads. Reaches scoring through the files it writes, never through imports.

`settings`    What ``lmsys-ensemble train recipe.yaml`` reads.
`dataset`     Labelled battles: read, divided by group, encoded in both orders.
`hidden`      Hidden states that enter the first trained layer, computed once.
`head`        A head by logistic regression on pooled hidden states.
`lora`        The training loop.
`validation`  Held-out figures beside baselines that know nothing of the texts.
`card`        Model cards.
`run`         One training run, from a recipe to a folder.
`averaging`   The mean of LoRA adapters, as one adapter.
`parts`       Adapters that are to become one, checked for what they must have in common.
`merging`     Adapters of folds become one, measured against the mean of their probabilities.
`compression`  Weights rounded to 8 or 4 bits, in the format of compressed-tensors.
`merged_weights`  Base and adapter, added up one layer at a time.
`export`      A trained adapter and its base become one plain transformers folder.
`merged_cards`  Model cards of what was made out of trained adapters.
"""

import lmsys_ensemble.modeling  # noqa: F401 - quietens bitsandbytes, before peft imports that
