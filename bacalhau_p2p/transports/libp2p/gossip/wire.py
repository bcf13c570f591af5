"""The wire format of gossipsub: its messages in protobuf, and ids that are read without parsing.

It is that of gossipsub 1.2 with two additions, in numbers that the specification leaves to experiments and
that other implementations ignore: a GRAFT says how many links its sender has (`LINKS`), and a CHOKE asks its
receiver to hold back the messages of a topic, or no longer. `mesh` and `eager` say what for.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.encoding.varint import encode_varint

GOSSIPSUB_12: Final = "/meshsub/1.2.0"
FLOODSUB: Final = "/floodsub/1.0.0"
PROTOCOLS: Final = (GOSSIPSUB_12, "/meshsub/1.1.0", "/meshsub/1.0.0", FLOODSUB)
"""In order of preference."""

LINKS: Final = 0x2BACA1
CHOKE: Final = 0x2BACA2
"""Field numbers of our additions. The specification asks experiments to use numbers above 0x200000."""

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCHEMA: Final = {
    "SubOpts": "subscribe=1 bool, topicid=2 string",
    "Message": "from_id=1 bytes, data=2 bytes, seqno=3 bytes, topicIDs=4 string*, signature=5 bytes, "
    "key=6 bytes",
    "IHave": "topicID=1 string, messageIDs=2 bytes*",
    "IWant": "messageIDs=1 bytes*",
    "Graft": f"topicID=1 string, links={LINKS} uint32",
    "Prune": "topicID=1 string, backoff=3 uint64",
    "Choke": "topicID=1 string, choked=2 bool",
    "Control": "ihave=1 IHave*, iwant=2 IWant*, graft=3 Graft*, prune=4 Prune*, idontwant=5 IWant*, "
    f"choke={CHOKE} Choke*",
    "RPC": "subscriptions=1 SubOpts*, publish=2 Message*, control=3 Control",
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="gossip.proto", package="gossip", syntax="proto2")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for text in fields.split(", "):
            definition, kind = text.split(" ")
            field, number = definition.split("=")
            added = message.field.add(name=field, number=int(number))
            added.label = _FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            if kind in _SCHEMA:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".gossip.{kind}"
            else:
                added.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"gossip.{name}"))
        for name in _SCHEMA
    }


_CLASSES: Final = _build()
RPC: Final[Any] = _CLASSES["RPC"]
Message: Final[Any] = _CLASSES["Message"]
Control: Final[Any] = _CLASSES["Control"]


def encode_rpc(rpc: Any) -> bytes:
    """An RPC with its length in front."""
    return encode_frame(rpc.SerializeToString())


def encode_control(control: Any) -> bytes:
    """An RPC with this control message alone."""
    return encode_rpc(RPC(control=control))


def encode_message(bare: bytes, signature: bytes, key: bytes) -> bytes:
    """An RPC with one message alone, from its serialized form without signature and key.

    It is the same whoever sends it, and has no fields that the author did not sign.
    """
    message = bare + b"\x2a" + encode_frame(signature)
    if key:
        message += b"\x32" + encode_frame(key)
    return encode_frame(b"\x12" + encode_varint(len(message)) + message)


def message_id(message: Any) -> bytes:
    """The id of a message, as in other implementations: author and sequence number."""
    return bytes(message.from_id + message.seqno)


def peek_message_id(encoded: bytes) -> bytes | None:
    """The id of the message in an RPC that has this message alone; otherwise None, and it must be parsed.

    This reads a few bytes at the start and copies nothing, so a duplicate costs a microsecond whatever its
    size. It relies on the order in which all implementations write the fields.
    """
    try:
        if encoded[0] != 0x12:
            return None
        length, at = _varint(encoded, 1)
        if at + length != len(encoded) or encoded[at] != 0x0A:
            return None
        start = at + 2
        at = start + encoded[at + 1]
        author = encoded[start:at]
        if encoded[at] != 0x12:
            return None
        length, at = _varint(encoded, at + 1)
        at += length
        if encoded[at] != 0x1A or encoded[at + 1] > 0x7F:
            return None
        seqno = encoded[at + 2 : at + 2 + encoded[at + 1]]
    except IndexError:
        return None
    return author + seqno


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place after it."""
    byte = encoded[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while shift < 35:
        at += 1
        byte = encoded[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7
    raise IndexError("not a length")
