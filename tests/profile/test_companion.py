"""Programs beside a prompt that do not start."""

import pytest

from ophyd_eiger import companion
from ophyd_eiger.companion import Companion
from ophyd_eiger.errors import EigerError


def test_one_that_fails_is_told_in_its_own_words():
    with pytest.raises(EigerError, match=r"no_such_module did not start:\n.*No module named"):
        Companion("no_such_module").url  # noqa: B018 - waited for


def test_one_that_says_nothing_is_not_waited_for_for_ever(monkeypatch, tmp_path):
    (tmp_path / "silent.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(companion, "START_TIMEOUT_S", 0.5)
    beside = Companion("silent", environment={"PYTHONPATH": str(tmp_path)})
    with pytest.raises(EigerError, match="silent did not start"):
        beside.url  # noqa: B018 - waited for
    assert beside._process.returncode is not None
