"""Training of LoRA adapters and heads. Reaches scoring through the files it writes, never through imports.

`settings`    What ``lmsys-ensemble train recipe.yaml`` reads.
`dataset`     Labelled battles: read, divided by group, encoded in both orders.
`hidden`      Hidden states that enter the first trained layer, computed once.
`head`        A head by logistic regression on pooled hidden states.
`lora`        The training loop.
`validation`  Held-out figures beside baselines that know nothing of the texts.
`card`        Model cards.
`run`         One training run, from a recipe to a folder.
"""

import lmsys_ensemble.modeling  # noqa: F401 - quietens bitsandbytes, before peft imports that
