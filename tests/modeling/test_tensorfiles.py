import gzip
import io
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.modeling.tensorfiles import check_safetensors, describe_content, read_header

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 538090408\n"


def saved(write, *arguments):
    buffer = io.BytesIO()
    write(*arguments, buffer)
    return buffer.getvalue()


CONTENTS = {
    "Git-LFS pointer": LFS_POINTER,
    "git-annex pointer": b"/annex/objects/SHA256E-s1--abc.safetensors\n",
    "web page": b"<!DOCTYPE html>\n<html><head><title>404",
    "compressed": gzip.compress(b"weights", mtime=0),
    "GGUF": b"GGUF\x03\x00\x00\x00" + b"\x00" * 20,
    "zip archive": saved(torch.save, {"a": torch.zeros(2)}),
    "pickle": pickle.dumps({"a": 1}),
    "only zero bytes": b"\x00" * 1000,
    "empty": b"",
    "JSON": b'{"error": "not found"}',
    "a text": b"Access denied\n",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_is_told_by_how_it_begins(kind, tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(CONTENTS[kind])
    assert kind in describe_content(path)
    with pytest.raises(IntegrityError, match=rf"adapter_model\.safetensors holds no tensors: it is .*{kind}"):
        check_safetensors(path)


def test_a_file_of_tensors_is_one_and_noise_is_nothing(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert describe_content(tmp_path / "a.safetensors") == "a safetensors file"
    check_safetensors(tmp_path / "a.safetensors")
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(300))
    assert describe_content(tmp_path / "noise") == ""
    with pytest.raises(IntegrityError, match="noise is damaged or cut short"):
        check_safetensors(tmp_path / "noise")


def test_a_header_says_what_the_tensors_are_and_where(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(4, dtype=torch.bfloat16)}
    save_file(tensors, path, metadata={"format": "pt"})
    header, content = read_header(path), path.read_bytes()
    assert {name: (entry.dtype, entry.shape) for name, entry in header.items()} == {
        "a": ("BF16", (4,)),
        "b": ("F32", (2, 3)),
    }
    assert np.frombuffer(content[header["b"].start : header["b"].stop], np.float32).tolist() == [*range(6)]
    starts = [entry.start for entry in header.values()]
    assert starts == sorted(starts)
    assert load_file(path).keys() == header.keys()
