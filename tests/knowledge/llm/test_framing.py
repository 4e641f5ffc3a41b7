"""Bodies in chunks and server-sent events, wherever the network cuts them."""

import json

import pytest

from knowledge.llm.framing import ChunkReader, EventReader, FramingError

EVENTS = [{"type": "ping"}, {"type": "text", "text": "ä\n\nb"}, {"type": "end", "of": [1, 2]}]


def sent_as(line_end: str) -> bytes:
    lines = [f": hello{line_end}{line_end}"]
    for each in EVENTS:
        lines.append(f"event: {each['type']}{line_end}data: {json.dumps(each)}{line_end}{line_end}")
    return "".join(lines).encode()


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_events_are_found_however_they_are_cut(line_end: str) -> None:
    data = sent_as(line_end)
    for size in (1, 2, 7, 40, len(data)):
        reader = EventReader()
        parts = [reader.feed(data[at : at + size]) for at in range(0, len(data), size)]
        assert [event for part in parts for event in part] == EVENTS, size
    # Data on several lines are one object; an event that has not ended is none yet.
    reader = EventReader()
    assert reader.feed(b'data: {"type":\ndata: "x"}\n') == []
    assert reader.feed(b"\n") == [{"type": "x"}]


@pytest.mark.parametrize("data", [b"data: <html>\n\n", b"data: 5\n\n", b'data: {"text": "no type"}\n\n'])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(FramingError):
        EventReader().feed(data)


def test_chunks_are_put_together_however_they_are_cut() -> None:
    data = b"4\r\nWiki\r\n10;name=value\r\npedia in\r\n chunk\r\n0\r\n\r\n"
    for size in (1, 3, 11, len(data)):
        reader = ChunkReader()
        parts = []
        for at in range(0, len(data), size):
            assert not reader.is_over
            parts.append(reader.feed(data[at : at + size]))
        assert b"".join(parts) == b"Wikipedia in\r\n chunk" and reader.is_over
    with pytest.raises(FramingError):
        ChunkReader().feed(b"many\r\n")
