"""Reading and closing the channels to molds and workers in the arbiter's selector."""

import selectors
from collections.abc import Iterator

from prefork.base.channel import Channel
from prefork.base.messages import Message


def receive_all(channel: Channel) -> Iterator[Message | None]:
    """Yield the messages that have arrived; None, last, when the other side has closed.

    Ends as well when the channel is closed here meanwhile.
    """
    while True:
        try:
            received = channel.receive(wait=False)
        except (BlockingIOError, OSError):
            return
        if received is None:
            yield None
            return
        yield received[0]


def drop_channel(selector: selectors.BaseSelector, channel: Channel) -> None:
    """Close a channel, once."""
    if channel.fileno() >= 0:
        selector.unregister(channel)
        channel.close()
