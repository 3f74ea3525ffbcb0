"""Log lines in messages: all of the text, in order, and no message that Discord refuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.discord.log_messages import Message, Packer


def packed(*lines: str) -> list[Message]:
    packer = Packer()
    messages = [message for line in lines for message in packer.add(line)]
    return [*messages, *packer.take()]


def test_lines_share_a_message_as_long_as_they_fit() -> None:
    assert packed("a", "b", "c") == [Message("a\nb\nc", 3)]
    assert packed("a" * 999, "b" * 1_000) == [Message("a" * 999 + "\n" + "b" * 1_000, 2)]
    assert packed("a" * 1_000, "b" * 1_000) == [Message("a" * 1_000, 1), Message("b" * 1_000, 1)]


def test_a_long_line_takes_several_messages_and_counts_once() -> None:
    assert packed("a" * 2_000) == [Message("a" * 2_000, 1)]
    assert packed("a" * 4_500, "b") == [
        Message("a" * 2_000, 1), Message("a" * 2_000, 0), Message("a" * 500 + "\nb", 1)
    ]  # fmt: skip


def test_a_traceback_is_split_between_its_lines() -> None:
    line = "    " + "a" * 95
    first, second = packed("\n".join([line] * 30))
    assert first.content == "\n".join([line] * 20)
    assert second.content == "\n".join([line] * 10)


def test_the_longest_lines_are_cut() -> None:
    messages = packed("a" * 1_000_000)
    assert len(messages) == 11
    assert messages[-1] == Message("(and 980000 characters more)", 0)


def test_characters_of_two_units_fit_as_well() -> None:
    messages = packed("\N{GRINNING FACE}" * 1_500)
    assert [len(message.content) for message in messages] == [1_000, 500]


def test_blanks_are_no_message() -> None:
    assert packed("", " ", "\n\n", "\0") == []
    assert packed("\n" * 5_000 + "a") == [Message("a", 1)]


@given(
    st.lists(st.text(max_size=5_000) | st.text(alphabet="a \n\0\ud800\N{GRINNING FACE}", max_size=5_000), max_size=8)
)
def test_any_text_can_be_sent(lines: list[str]) -> None:
    messages = packed(*lines)
    for message in messages:
        assert message.content.strip()
        assert len(message.content.encode("utf-16-le")) <= 4_000
        message.content.encode()
    assert sum(message.lines for message in messages) <= len(lines)
