"""Training of LoRA adapters and classification heads.

Training reaches scoring through the files it writes (adapter, head, recipe, golden rows), never through imports.
"""

import lmsys_ensemble.modeling  # noqa: F401 - quietens bitsandbytes, before peft imports that
