"""Lines as they arrive, whatever the blocks they come in."""

import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.data import lines
from sweet_jax.data.lines import LineReader


@pytest.fixture
def pipe():
    """A reader on a pipe, and the file descriptor to write to."""
    source, sink = os.pipe()
    with io.FileIO(source) as file:
        yield LineReader(file), sink


@given(parts=st.lists(st.sampled_from(["a", "é", "\r", " ", "\n", "\n\n", "b" * 70])))
def test_lines_are_those_of_python(parts, tmp_path_factory):
    text = "".join(parts)
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())
    expected = list(io.StringIO(text, newline=""))
    old, lines._BLOCK_BYTES = lines._BLOCK_BYTES, 3
    try:
        with io.FileIO(path) as file:
            reader = LineReader(file)
            assert list(reader) == expected
            assert reader.num_bytes == len(text.encode())
    finally:
        lines._BLOCK_BYTES = old


def test_a_byte_order_mark_is_left_out_and_bad_bytes_show_in_their_line(pipe):
    reader, sink = pipe
    os.write(sink, b"\xef\xbb\xbfone\ntw\xff\n\xef\xbb\xbfthree")
    os.close(sink)
    assert list(reader) == ["one\n", "tw\udcff\n", "\ufeffthree"]


def test_a_line_is_there_as_soon_as_it_is_written(pipe):
    reader, sink = pipe
    assert not reader.is_ready()
    os.write(sink, b"one\ntwo\nthr")
    assert reader.is_ready()
    assert next(reader) == "one\n"
    assert reader.is_ready()
    assert next(reader) == "two\n"
    assert not reader.is_ready()
    os.write(sink, b"ee\n")
    assert reader.is_ready()
    assert next(reader) == "three\n"
    os.close(sink)
    # The end is nothing to wait for.
    assert reader.is_ready()
    with pytest.raises(StopIteration):
        next(reader)


def test_an_input_that_does_not_block_is_waited_for():
    source, sink = os.pipe()
    os.set_blocking(source, False)

    def write_late() -> None:
        os.write(sink, b"one\n")
        os.close(sink)

    later = threading.Timer(0.05, write_late)
    later.start()
    with io.FileIO(source) as file:
        assert list(LineReader(file)) == ["one\n"]
    later.join()
