"""Whether a value means something, and how it is shown if not."""

from __future__ import annotations

import reprlib

from pipeline.errors import RecipeError


def show_value(value: object) -> str:
    """Show a value in a message, however large it is."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 120
    return shortener.repr(value)


def require_int_in(name: str, value: object, lowest: int, highest: int) -> None:
    """Raise RecipeError unless a value is a whole number within limits, these included."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise RecipeError(f"{name} is {show_value(value)}; allowed is a whole number from {lowest} to {highest}")


def require_text(name: str, value: object) -> None:
    """Raise RecipeError unless a value is a text with something in it."""
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{name} is {show_value(value)}; allowed is a text that is not empty")


def is_number(value: object) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise RecipeError unless a value is one of those that are allowed."""
    if value not in allowed:
        raise RecipeError(f"{name} is {show_value(value)}; allowed is {', '.join(map(str, allowed))}")
