import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.training.checkpoints import check_same_run, describe_run, last_complete


def test_checkpoints_that_are_not_whole_are_removed(tmp_path):
    for name, complete in (("checkpoint-2", True), ("checkpoint-10", True), ("checkpoint-12", False)):
        (tmp_path / name).mkdir()
        if complete:
            (tmp_path / name / "complete").touch()
    assert last_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
    assert last_complete(tmp_path / "nowhere") is None


def test_a_run_is_known_by_its_recipe_rows_and_base_but_not_by_what_only_shows(tmp_path):
    settings = {"name": "one", "report_to": [], "lora": {"r": 4}}
    run = describe_run(settings, "data", "held", "base")
    check_same_run(tmp_path, run)
    check_same_run(
        tmp_path, describe_run({**settings, "name": "two", "report_to": ["tensorboard"]}, "data", "held", "base")
    )
    with pytest.raises(ConfigError, match=r"settings\.lora\.r is 8, was 4; .* or begin anew with --overwrite|was 4"):
        check_same_run(tmp_path, describe_run({**settings, "lora": {"r": 8}}, "data", "held", "base"))
    with pytest.raises(ConfigError, match=r"base_digest is 'other', was 'base'; data_sha256 is 'new', was 'data'"):
        check_same_run(tmp_path, describe_run(settings, "new", "held", "other"))
