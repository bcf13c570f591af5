from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from bacalhau_p2p.errors import InvalidValue, RemoteError
from bacalhau_p2p.functions.encoding import encode, encode_call, read_answer
from bacalhau_p2p.functions.guest.values import MAX_VALUE
from bacalhau_p2p.functions.inputs import Input


@dataclass
class Point:
    x: int


CLASSES = {"Point": Point}


def test_a_call_is_a_list_of_arguments_and_a_map_of_named_ones():
    document, placed = encode_call([1, (Point(2), Input("bafy"))], {"b": Input("bafy")}, CLASSES)
    path = '{"$path":"/inputs/0"}'
    assert (
        document.decode() == f'[[1,{{"$tuple":[{{"$object":["Point",{{"x":2}}]}},{path}]}}],{{"b":{path}}}]'
    )
    assert placed.targets == {"/inputs/0": "bafy"}


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ([1, object()], {}, "argument 2: a value of type object cannot be sent"),
        ([], {"x": [object()]}, "argument x: a value of type object cannot be sent"),
        ([b"x" * 13_000_000], {}, r"take 173333\d\d bytes as JSON; the limit is 16777216: add large data"),
    ],
)
def test_arguments_that_cannot_be_sent_are_named(args, kwargs, problem):
    with pytest.raises(InvalidValue, match=problem):
        encode_call(args, kwargs, CLASSES)


def test_an_answer_has_the_value():
    assert read_answer(b'{"format":1,"value":{"$object":["Point",{"x":1}]}}', CLASSES) == Point(1)


def test_an_error_is_raised_as_text_that_no_terminal_obeys():
    told = {"type": "os.E\x1b" + "x" * 300, "message": "m\x1b[2J\nn", "traceback": "t\x07\n" * 20_000}
    with pytest.raises(RemoteError) as raised:
        read_answer(encode({"format": 1, "error": told}), {})
    error = raised.value
    assert error.type_name == "os.E\ufffd" + "x" * 195
    assert error.remote_message == "m\ufffd[2J\nn"
    assert error.traceback.endswith("t\ufffd\n")
    assert len(error.traceback) == 50_000


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"1",
        b'{"format":1}',
        b'{"format":2,"value":1}',
        b'{"value":1,"format":1}',
        b'{"format":1,"value":1,"more":1}',
        b'{"format":1,"value": 1}',
        b'{"format":1,"value":1}\n',
        b'{"format":1,"value":1.50}',
        b'{"format":1,"value":1e999}',
        b'{"format":1,"value":-0}',
        b'{"format":1,"value":"\\u0041"}',
        b'{"format":1,"value":9007199254740992}',
        b'{"format":1,"value":{"$int":"0x1"}}',
        b'{"format":1,"value":{"$dict":[["a",1]]}}',
        b'{"format":1,"value":{"$set":[2,1]}}',
        b'{"format":1,"value":{"$path":"a//b"}}',
        b'{"format":1,"value":{"$date":"20240101"}}',
        b'{"format":1,"value":{"$object":["Path",{}]}}',
        b'{"format":1,"error":"x"}',
        b'{"format":1,"error":{"type":"x","message":"y"}}',
        b'{"format":1,"error":{"type":"x","message":1,"traceback":"z"}}',
        b'{"format":1,"value":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"format":1,"value":' + b"9" * 5000 + b"}",
    ],
    ids=lambda answer: answer.decode()[:60],
)
def test_an_answer_in_any_other_form_is_refused(answer):
    with pytest.raises(InvalidValue, match="the result is malformed: "):
        read_answer(answer, CLASSES)


def test_an_answer_that_is_too_long_is_not_read():
    with pytest.raises(InvalidValue, match="the limit is 16777216"):
        read_answer(b" " * (MAX_VALUE + 1), {})


def test_what_is_wrong_with_an_answer_is_said_in_few_words():
    with pytest.raises(InvalidValue) as caught:
        read_answer(b'{"format":1,"value":{"$float":"' + b"x" * 1_000_000 + b'"}}', {})
    assert len(str(caught.value)) < 300


def test_a_path_arrives_as_a_path():
    assert PurePosixPath("/x") == read_answer(b'{"format":1,"value":{"$path":"/x"}}', {})
