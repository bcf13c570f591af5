"""Bytes and values: strict CBOR and varints, as all protocols here use them."""
