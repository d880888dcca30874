"""OpenVINO in float32: dynamic length, one row a request, two requests of one thread each at a time.

The model is traced once a run; the result lies beside the checkpoint. Precision is pinned: left to itself OpenVINO
computes in bfloat16 where the processor can.
"""

import os
from pathlib import Path

import numpy as np
import openvino
import torch
from transformers import AutoModelForSequenceClassification

PACKAGES = ("openvino",)
NO_ENTRY = -1e9


class LastToken(torch.nn.Module):
    """Token ids of one row to logits; the masks are made here, so that tracing keeps the length free."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        types = getattr(model.config, "layer_types", None) or ()
        self.window = model.config.sliding_window if "sliding_attention" in types else None

    def forward(self, input_ids):
        """Return logits of shape (1, 3)."""
        positions = torch.arange(input_ids.shape[1], dtype=torch.int64)
        distance = (positions[:, None] - positions[None, :])[None, None]
        mask = torch.zeros_like(distance, dtype=torch.float32).masked_fill(distance < 0, NO_ENTRY)
        if self.window is not None:
            near = mask.masked_fill(distance >= self.window, NO_ENTRY)
            mask = {"full_attention": mask, "sliding_attention": near}
        hidden = self.model.base_model(
            input_ids=input_ids, attention_mask=mask, position_ids=positions[None], use_cache=False
        ).last_hidden_state
        return self.model.score(hidden[:, -1])


def traced(job):
    """Return the path of the model's intermediate representation, which is made if there is none."""
    path = Path(job["checkpoint"]) / "openvino" / "float32.xml"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        model = AutoModelForSequenceClassification.from_pretrained(job["checkpoint"], dtype=torch.float32).eval()
        with torch.no_grad():
            converted = openvino.convert_model(
                LastToken(model).eval(), example_input={"input_ids": torch.arange(1, 8)[None]}
            )
        converted.reshape({converted.inputs[0]: [1, -1]})
        openvino.save_model(converted, path, compress_to_fp16=False)
    return path


def scorer(job, path):
    """Return a function that scores rows with the model at `path`, longest first, on all cores."""
    n_cores = len(os.sched_getaffinity(0))
    settings = {
        "NUM_STREAMS": n_cores,
        "INFERENCE_NUM_THREADS": n_cores,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(path, "CPU", settings), n_cores)

    def score(rows):
        found = {}

        def take(request, row):
            found[row] = request.get_output_tensor(0).data[0].copy()

        queue.set_callback(take)
        for row in sorted(rows, key=lambda row: len(job["ids"][row]), reverse=True):
            queue.start_async({0: np.array([job["ids"][row]], dtype=np.int64)}, row)
        queue.wait_all()
        logits = torch.from_numpy(np.stack([found[row] for row in rows]))
        return logits.float().softmax(-1).tolist()

    return score


def load(job):
    return scorer(job, traced(job))
