from __future__ import annotations

from bacalhau_p2p.errors import LogsUnavailable
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.page import output
from bacalhau_p2p.page.output import END, output_events, output_text


def piece(data, stream=LogStream.STDOUT):
    return LogPiece(ExecutionID("e"), stream, 0, data)


async def pieces_of(*pieces, error=None):
    for each in pieces:
        yield each
    if error is not None:
        raise error


async def events_of(*pieces, error=None):
    return [event async for event in output_events(pieces_of(*pieces, error=error))]


async def test_each_piece_is_an_event_that_keeps_its_newlines_and_says_which_stream_it_is():
    assert await events_of(piece(b"a\nb\n"), None, piece(b"bad", LogStream.STDERR)) == [
        b'data: <span class="stdout">a\ndata: b\ndata: </span>\n\n',
        b": nothing new\n\n",
        b'data: <span class="stderr">bad</span>\n\n',
        END,
    ]


async def test_a_letter_that_is_cut_in_two_is_whole_and_what_is_no_text_is_replaced():
    euro = "€".encode()
    first, second, _ = await events_of(piece(euro[:1]), piece(euro[1:] + b"\xff\r\x1b[2J"))
    assert first == b'data: <span class="stdout"></span>\n\n'
    assert second.decode() == 'data: <span class="stdout">€\ufffd\ufffd\ufffd[2J</span>\n\n'


async def test_output_cannot_be_html_or_another_event():
    (event, _) = await events_of(piece(b"</span><script>x</script>\n\nevent: end\n"))
    assert b"<script>" not in event
    assert all(line.startswith(b"data: ") for line in event.splitlines() if line)


async def test_a_page_gets_only_so_much(monkeypatch):
    monkeypatch.setattr(output, "MAX_SHOWN", 5)
    *events, end = await events_of(piece(b"abc"), piece(b"defg"), piece(b"hij"))
    assert [b"abc" in events[0], b"de<" in events[1], b"all that the page shows" in events[2]] == [True] * 3
    assert (len(events), end) == (3, END)


async def test_output_that_cannot_be_had_says_why():
    (event, end) = await events_of(error=LogsUnavailable("its node is <gone>"))
    assert b"its node is &lt;gone&gt;" in event
    assert end == END
    text = [data async for data in output_text(piece(b"begin"), pieces_of(error=LogsUnavailable("gone")))]
    assert text == [b"begin", b"\ngone\n"]


async def test_plain_text_is_what_was_written():
    text = output_text(piece(b"\xffa"), pieces_of(None, piece(b"b", LogStream.STDERR)))
    assert b"".join([data async for data in text]) == b"\xffab"
