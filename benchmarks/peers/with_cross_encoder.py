"""sentence-transformers' ``CrossEncoder.predict``: it sorts by length and pads; batches of four as in the notebook.

It takes pairs; the tokenizer joins the halves of a row to the same token ids (checked before the first row is scored).
"""

import torch
from sentence_transformers import CrossEncoder

PACKAGES = ("sentence-transformers",)
BATCH_SIZE = 4


def load(job):
    model = CrossEncoder(job["checkpoint"], num_labels=3, device="cpu", model_kwargs={"dtype": torch.float32})
    pairs = []
    for ids in job["ids"]:
        half = len(ids) // 2
        pairs.append((" ".join(map(str, ids[:half])), " ".join(map(str, ids[half:]))))
    for pair, ids in zip(pairs, job["ids"], strict=True):
        if model.tokenizer(*pair)["input_ids"] != ids:
            raise ValueError("the tokenizer does not give back the row's token ids")

    def score(rows):
        return model.predict(
            [pairs[row] for row in rows], batch_size=BATCH_SIZE, apply_softmax=True, show_progress_bar=False
        ).tolist()

    return score
