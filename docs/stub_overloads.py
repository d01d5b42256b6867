"""For the reference: a function that a stub declares by overloads alone is documented too."""

from __future__ import annotations

from typing import Any

import griffe


class StubOverloads(griffe.Extension):
    """Adds the last overload, which is the widest, as the function itself."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        for name, overloads in cls.overloads.items():
            if overloads and name not in cls.members:
                function = overloads[-1]
                function.overloads = list(overloads)
                cls.set_member(name, function)
