"""The programs under the emulated kernel, as far as that can be seen without it: a run there takes minutes."""

from __future__ import annotations

from tests.emulated.preloaded import expectations


def test_what_is_made_more_patient_is_there() -> None:
    for module, name in expectations():
        assert isinstance(getattr(module, name), float), f"{module.__name__}.{name}"
