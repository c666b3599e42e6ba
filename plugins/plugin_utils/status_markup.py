# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What others have named, so that it can stand in a page or on a terminal and is nothing but text there."""

from __future__ import annotations

import html
import re

# Also what turns the direction of writing, by which a name can look like another one.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def plain(text: object) -> str:
    """Without what a terminal would obey."""
    return _CONTROL.sub("?", str(text))


def escape(text: object) -> str:
    """For a page, inside of an attribute too."""
    return html.escape(plain(text), quote=True)
