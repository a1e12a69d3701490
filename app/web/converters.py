"""What stands for a number in a path."""

from __future__ import annotations

from werkzeug import routing


class IntegerConverter(routing.IntegerConverter):
    """Digits 0 to 9 alone: those of other scripts would be second spellings of one address."""

    regex = r"[0-9]+"
