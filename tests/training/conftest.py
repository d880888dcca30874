import pytest


@pytest.fixture(scope="package", autouse=True)
def _cache(tmp_path_factory):
    """Keep hidden states out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
