"""Tests, room by room as the package has them; `support` has what several rooms share."""
