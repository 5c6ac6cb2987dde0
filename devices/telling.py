"""What the pages of the admin say of a board.

It *holds* what it said so of, or was sent whole; it *runs* what it says. Where it is not seen any more, that is told by
a time: no page calls a board online.
"""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

from devices.models import DeviceConfig
from iotsupport.boards.models import Board, State
from iotsupport.times import show, since, tell_date, told

MISFIT = SafeString('<span class="state behind">does not fit</span>')

TONES = {State.CURRENT: "good", State.BEHIND: "behind"}


def tell_state(board: Board) -> SafeString:
    """Its state, as a word with a square of its colour."""
    return format_html('<span class="state {}">{}</span>', TONES.get(State(board.state), "quiet"), state_name(board))


def state_name(board: Board) -> str:
    return str(State(board.state).label)


def tell_type(config: DeviceConfig) -> SafeString | str:
    """The type of a configuration, and that it does not fit where that is so. Empty where it has none."""
    if config.type is None:
        return ""
    return format_html("{} {}", config.type.name, MISFIT) if config.fits is False else config.type.name


def tell_state_since(board: Board) -> SafeString | str:
    """Since when it is so, where that is known."""
    if board.state == State.BEHIND and board.behind_since:
        return since(board.behind_since)
    if board.state == State.CURRENT and board.holds_since:
        return since(board.holds_since)
    return ""


def tell_last_seen(board: Board) -> SafeString | str:
    """When it was last seen; "silent" where that is too long ago. Empty where it never was."""
    if board.last_seen is None:
        return ""
    if not board.is_silent:
        return told(board.last_seen)
    when = show(board.last_seen, f"since {tell_date(board.last_seen)}")
    return format_html('<span class="state bad">silent</span> {}', _second(when))


def tell_runs(board: Board) -> SafeString | str:
    """The version that it says it runs, and the file that has it. Empty where it says nothing."""
    if board.runs_version and board.runs_filename:
        return format_html("{} {}", board.runs_version, _second(board.runs_filename))
    return board.runs_version or board.runs_filename


def _second(text: SafeString | str) -> SafeString:
    """A second line of a cell."""
    return format_html('<span class="second">{}</span>', text)


def with_second(text: SafeString | str, second: SafeString | str) -> SafeString | str:
    return format_html("{} {}", text, _second(second)) if second else text
