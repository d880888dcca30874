"""Predict the competition's test.csv and write submission.csv.

Paste it into a Kaggle notebook, or run ``python examples/build_submission.py`` from the root of the repository. Every
setting below can be changed here or given as an environment variable of the same name.
"""

import os
from pathlib import Path

from lmsys_ensemble import Blender, Ensemble, GemmaScorer, LlamaScorer, build_submission, read_table, write_submission

KAGGLE, EXAMPLE = Path("/kaggle/input/lmsys-chatbot-arena"), Path("examples/data")
TEST = os.environ.get("TEST") or (KAGGLE / "test.csv" if KAGGLE.is_dir() else EXAMPLE / "battles.csv")
SAMPLE = os.environ.get("SAMPLE") or Path(TEST).parent / "sample_submission.csv"
OUT = os.environ.get("OUT") or "submission.csv"
# Folders of the base models, and of adapters that `lmsys-ensemble train` or `import-checkpoint` wrote.
GEMMA, GEMMA_ADAPTER = os.environ.get("GEMMA"), os.environ.get("GEMMA_ADAPTER")
LLAMA, LLAMA_ADAPTER = os.environ.get("LLAMA"), os.environ.get("LLAMA_ADAPTER")

if GEMMA and GEMMA_ADAPTER and LLAMA and LLAMA_ADAPTER:  # two GPUs; where one is missing, the error says so
    gemma = GemmaScorer(GEMMA, adapter=GEMMA_ADAPTER, device="cuda:0", quantization="nf4")
    llama = LlamaScorer(LLAMA, adapter=LLAMA_ADAPTER, device="cuda:1", quantization="int8")
    ensemble = Ensemble([gemma, llama], Blender(weights=[0.5, 0.5]))
else:
    ensemble = Ensemble()  # two small pretrained models that come with the library and run on a CPU

predictions = ensemble.predict(read_table(TEST))
submission = build_submission(predictions, read_table(SAMPLE))
write_submission(submission, OUT)
print(f"{' + '.join(scorer.name for scorer in ensemble.scorers)}: wrote {len(submission)} rows to {OUT}")
