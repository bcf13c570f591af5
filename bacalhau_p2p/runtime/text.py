"""Text of strangers, made harmless for terminals and logs."""

from __future__ import annotations

import re

# C0 and C1 control characters with DEL, line and paragraph separators, marks that turn the direction of
# writing or join characters invisibly, tags, and lone surrogates, which cannot be encoded.
_OTHERS = (
    "\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_HARMFUL = re.compile(f"[\x00-\x1f{_OTHERS}]")
_HARMFUL_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_OTHERS}]")
_REPLACEMENT = "\ufffd"


def printable(text: str, *, keep_lines: bool = False) -> str:
    """`text` with every character replaced that could move the cursor, send a command to a terminal, or show
    something other than what is written. `keep_lines` keeps newlines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return (_HARMFUL_IN_LINES if keep_lines else _HARMFUL).sub(_REPLACEMENT, text)
