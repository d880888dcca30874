import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.training.checkpoints import compare_runs, describe_run, last_complete, unwritten


def test_checkpoints_that_are_not_whole_are_removed(tmp_path):
    for name, complete in (("checkpoint-2", True), ("checkpoint-10", True), ("checkpoint-12", False)):
        (tmp_path / name).mkdir()
        if complete:
            (tmp_path / name / "complete").touch()
    assert last_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
    assert last_complete(tmp_path / "nowhere") is None


def test_a_run_is_known_by_its_recipe_rows_and_base_but_not_by_what_only_shows(tmp_path):
    settings, hashes = (
        {"name": "one", "report_to": [], "lora": {"r": 4}},
        {"data_sha256": "data", "base_sha256": "base"},
    )
    run = describe_run(settings, hashes)
    compare_runs(run, describe_run({**settings, "name": "two", "report_to": ["tensorboard"]}, hashes), tmp_path)
    with pytest.raises(ConfigError, match=r"settings\.lora\.r is 8, was 4; .* or begin anew with --overwrite|was 4"):
        compare_runs(run, describe_run({**settings, "lora": {"r": 8}}, hashes), tmp_path)
    with pytest.raises(ConfigError, match=r"base_sha256 is 'other', was 'base'; data_sha256 is 'new', was 'data'"):
        compare_runs(run, describe_run(settings, {"data_sha256": "new", "base_sha256": "other"}), tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_removed_and_the_one_that_is_kept_is_named(tmp_path):
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "half").touch()
    error = RuntimeError("unexpected pos 576 vs 534\nstack")
    words = "checkpoint-4 cannot be written; the disk is probably full (unexpected pos 576 vs 534). "
    assert f"{words}There is no earlier one" in unwritten(tmp_path / "checkpoint-4", error)
    assert not (tmp_path / "checkpoint-4").exists()
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "complete").touch()
    assert f"{words}{tmp_path / 'checkpoint-2'} is kept: free some space" in unwritten(tmp_path / "checkpoint-4", error)
