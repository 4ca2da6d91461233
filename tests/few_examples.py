"""``-p tests.few_examples``: properties are tried with a tenth of their examples.

For a second Python. Another version may compute a case otherwise, or warn of how it is computed;
what depends on the case alone was tried with all examples on the first.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings

FRACTION: Final = 10
_SETTINGS: Final = "_hypothesis_internal_use_settings"
"""Where Hypothesis keeps them at a test. A profile would be overruled by a number that a test names."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lower the number of examples of each property, whatever it is."""
    for item in items:
        assert isinstance(item, pytest.Function)
        test = getattr(item.obj, "__func__", item.obj)
        if isinstance(asked := getattr(test, _SETTINGS, None), settings):
            setattr(test, _SETTINGS, fewer(asked))
        # A machine of states has them at its class, for all of its tests.
        elif isinstance(asked := getattr(item.cls, "settings", None), settings):
            item.cls.settings = fewer(asked)


def fewer(asked: settings) -> settings:
    """Return settings that are the same but for their examples."""
    return settings(asked, max_examples=max(1, asked.max_examples // FRACTION))
