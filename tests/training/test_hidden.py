"""Hidden states below the first trained layer: exact, kept, found again, and never half."""

import os

import numpy as np
import pytest
import torch

from lmsys_ensemble.compute.depth import only_layers
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.training import hidden
from lmsys_ensemble.training.hidden import HiddenStore
from tests.tiny import encode, make_battles
from tests.training.disk import files_of_at_most

IDENTITY = {"base_digest": "0", "first_layer": 2}


@pytest.fixture
def backbone(checkpoints):
    return load_backbone(checkpoints, "llama")


def load_backbone(checkpoints, architecture):
    settings = LoadSettings(3, "cpu", torch.float32)
    return load_classifier(checkpoints.base(architecture), settings, head_follows=True).base_model


class Told(list):
    """What a store said, and the tokens that were computed."""

    def __init__(self):
        super().__init__()
        self.tokens = 0

    def count(self, n_tokens):
        self.tokens += n_tokens


def get(store_folder, backbone, encoded, told, identity=None):
    store = HiddenStore(store_folder, identity or IDENTITY, 64, told.append)
    return store.get(backbone, 2, encoded, 300, told.count)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3"])
def test_they_are_what_enters_the_first_trained_layer(checkpoints, tmp_path, architecture):
    backbone = load_backbone(checkpoints, architecture)
    encoded = encode(make_battles(6))
    told = Told()
    states = get(tmp_path, backbone, encoded, told)
    assert told.tokens == encoded.lengths.sum()
    (path,) = tmp_path.glob("*/part-1.bin")
    assert path.stat().st_size == 2 * 64 * encoded.lengths.sum()
    for row, ids in enumerate(encoded.ids):
        with torch.no_grad(), only_layers(backbone, 0, 2) as lower:
            alone = lower(input_ids=torch.tensor(ids[None].astype(np.int64)), use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(states[row].float(), alone, rtol=2**-7, atol=1e-3)


def test_rows_that_are_there_are_not_computed_again(tmp_path, backbone):
    first, both = encode(make_battles(5, seed=1)), encode(make_battles(9, seed=1))
    get(tmp_path, backbone, first, Told())
    told = Told()
    states = get(tmp_path, backbone, both, told)
    shared = {row.tobytes() for row in first.ids}
    new = sum(len(row) for row in both.ids if row.tobytes() not in shared)
    assert 0 < told.tokens == new < both.lengths.sum()
    assert f"{2 * 64 * new / 1e6:.1f} MB to compute" in told[0]
    assert str(tmp_path) in told[0]
    again, told = Told(), Told()
    repeated = get(tmp_path, backbone, both, again)
    assert again.tokens == 0
    assert all(torch.equal(repeated[row], states[row]) for row in range(len(both)))
    get(tmp_path, backbone, first, told, {**IDENTITY, "first_layer": 3})
    assert told.tokens == first.lengths.sum(), "another layer has states of its own"


def test_what_an_interrupted_run_left_is_not_read(tmp_path, backbone, monkeypatch):
    encoded = encode(make_battles(6))

    def fail_half_way(*arguments):
        values, on_batch = arguments[3], arguments[-1]
        values[: len(values) // 2] = 7
        on_batch(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hidden, "compute_hidden_states", fail_half_way)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, backbone, encoded, Told())
    assert list(tmp_path.glob("*/part-*.bin"))
    told = Told()
    states = get(tmp_path, backbone, encoded, told)
    assert told.tokens == encoded.lengths.sum()
    assert not (states[0] == 7).all()
    assert [path.name for path in tmp_path.glob("*/part-*.bin")] == ["part-1.bin"]


@pytest.mark.parametrize("damage", ["cut", "index", "gone"])
def test_a_damaged_file_is_computed_anew(tmp_path, backbone, damage):
    encoded = encode(make_battles(4))
    get(tmp_path, backbone, encoded, Told())
    (path,) = tmp_path.glob("*/part-1.bin")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2])
    elif damage == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    told = Told()
    get(tmp_path, backbone, encoded, told)
    assert told.tokens == encoded.lengths.sum()
    told = Told()
    get(tmp_path, backbone, encoded, told)
    assert told.tokens == 0


def test_a_disk_without_room_is_told_and_not_filled(tmp_path, backbone, monkeypatch):
    monkeypatch.setattr(hidden, "MOST_OF_FREE_DISK", 1e-12)
    told = Told()
    assert get(tmp_path, backbone, encode(make_battles(4)), told) is None
    assert "computed in every epoch instead (another folder: --cache FOLDER)" in told[0]
    assert told.tokens == 0
    assert not list(tmp_path.glob("*/part-*"))


def test_a_disk_that_has_filled_up_meanwhile_is_told_and_leaves_nothing(tmp_path, backbone):
    encoded, told = encode(make_battles(20)), Told()
    with files_of_at_most(int(encoded.lengths.sum()) * 64):
        assert get(tmp_path, backbone, encoded, told) is None
    assert "computed in every epoch instead" in told[-1]
    assert told.tokens == 0
    assert not list(tmp_path.glob("*/part-*"))


def test_room_is_reserved_before_and_values_are_on_the_disk_before_the_index(tmp_path, backbone, monkeypatch):
    encoded, events = encode(make_battles(40)), []
    compute, sync = hidden.compute_hidden_states, os.fsync

    def note_room(*arguments):
        (path,) = tmp_path.glob("*/part-1.bin")
        events.append(path.stat().st_blocks * 512 >= path.stat().st_size == 2 * 64 * encoded.lengths.sum())
        compute(*arguments)

    def note_file(descriptor):
        (path,) = tmp_path.glob("*/part-1.bin")
        events.append(os.path.samestat(os.fstat(descriptor), path.stat()))
        events.append(bool(list(tmp_path.glob("*/*part-1.json*"))))
        sync(descriptor)

    monkeypatch.setattr(hidden, "compute_hidden_states", note_room)
    monkeypatch.setattr(os, "fsync", note_file)
    get(tmp_path, backbone, encoded, Told())
    room, values_first, with_index, *_ = events
    assert room, "a sparse file would end the process where the disk is full"
    assert (values_first, with_index) == (True, False)


def test_rows_that_are_the_same_count_once(tmp_path, backbone):
    encoded, told = encode(make_battles(3).take(np.array([0, 1, *[2] * 80]))), Told()
    get(tmp_path, backbone, encoded, told)
    new = f"{2 * 64 * encoded.lengths[:3].sum() / 1e6:.1f} MB"
    assert f"{new} to compute, 0.0 MB there already" in told[0]
    get(tmp_path, backbone, encoded, told)
    assert f"0.0 MB to compute, {new} there already" in told[1]
