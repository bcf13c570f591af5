"""Bytes and values: strict CBOR, varints, frames and protobuf, as the protocols use them."""
