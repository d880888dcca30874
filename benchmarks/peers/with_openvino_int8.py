"""OpenVINO with NNCF's post-training quantisation: weights and activations in int8, calibrated on other real rows."""

import nncf
import numpy as np
import openvino
from with_openvino import scorer, traced

PACKAGES = ("openvino", "nncf")


def load(job):
    path = traced(job).with_name("int8.xml")
    if not path.is_file():
        rows = [np.array([ids], dtype=np.int64) for ids in job["calibration"]]
        model = openvino.Core().read_model(traced(job))
        quantised = nncf.quantize(
            model, nncf.Dataset(rows), subset_size=len(rows), model_type=nncf.ModelType.TRANSFORMER
        )
        openvino.save_model(quantised, path, compress_to_fp16=False)
    return scorer(job, path)
