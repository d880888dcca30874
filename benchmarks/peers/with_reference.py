"""What the others are compared with: transformers in float32, one row at a time, without padding."""

import torch
from transformers import AutoModelForSequenceClassification


def load(job):
    model = AutoModelForSequenceClassification.from_pretrained(job["checkpoint"], dtype=torch.float32).eval()

    @torch.inference_mode()
    def score(rows):
        logits = [model(input_ids=torch.tensor([job["ids"][row]]), use_cache=False).logits[0] for row in rows]
        return torch.stack(logits).float().softmax(-1).tolist()

    return score
