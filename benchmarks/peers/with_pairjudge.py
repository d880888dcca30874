"""pairjudge's ``PairwiseJudge`` on the same token ids: what its ``predict_proba`` does after packing, batches of four.

Its own packer would write another template; the packed rows are handed to the method that scores them.
"""

import numpy as np
import pandas as pd
from pairjudge import PackerConfig, PairwiseJudge

PACKAGES = ("pairjudge",)
BATCH_SIZE = 4


def load(job):
    judge = PairwiseJudge.from_pretrained(
        job["checkpoint"],
        packer_config=PackerConfig(max_length=job["max_tokens"]),
        label_order=job["labels"],
        allow_legacy=True,
        local_files_only=True,
        device="cpu",
    )

    def score(rows):
        ids = [job["ids"][row] for row in rows]
        frame = pd.DataFrame(
            {
                "_order": np.arange(len(ids)),
                "input_ids": ids,
                "attention_mask": [[1] * len(row) for row in ids],
                "length": [len(row) for row in ids],
            }
        )
        return judge._forward(frame, BATCH_SIZE).tolist()

    return score
