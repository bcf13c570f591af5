"""The promises: checked on everything that happens, and at the end of a world."""
