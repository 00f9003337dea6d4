"""What is done to every image."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Self

from pipeline.domain.checks import is_number, require_int_in, require_one_of, show_value
from pipeline.domain.stage import STAGES, Stage
from pipeline.errors import RecipeError

Fit = Literal["inside", "cover", "contain", "fill"]
Format = Literal["jpeg", "webp", "avif", "png", "same"]
FITS: Final[tuple[Fit, ...]] = ("inside", "cover", "contain", "fill")
FORMATS: Final[tuple[Format, ...]] = ("jpeg", "webp", "avif", "png", "same")

# WebP cannot be larger than this on a side; the other formats can.
MAX_SIDE: Final = 16383


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to every image; checked when made.

    Attributes
    ----------
    max_width, max_height : int
        The box that the result fits, in pixels, 1 to 16383.
    fit : {"inside", "cover", "contain", "fill"}
        How an image meets the box, as CSS and sharp define it: ``inside`` keeps the aspect and is at most the box;
        ``cover`` fills the box and crops what sticks out, centred; ``contain`` is ``inside`` on a canvas of the
        box's size; ``fill`` stretches.
    enhance : str or None
        A model's name in the catalogue, or None for no enhancement.
    strength : float
        0 to 1: how much of the enhanced image is blended with the one that would be stored without the model.
    format : {"jpeg", "webp", "avif", "png", "same"}
        The output's format; ``same`` keeps the source's.
    quality : int
        1 to 100, for the lossy formats.
    enlarge : bool
        Whether an image smaller than the box is made larger.
    background : str
        ``#rrggbb``: the canvas of ``contain``, and what shows through where the format has no alpha.
    keep_copyright : bool
        Whether the EXIF tags Artist and Copyright are kept; all other metadata is always removed.

    Raises
    ------
    RecipeError
        If a field is out of range. The message names the field, its value and what is allowed.
    """

    max_width: int = 1024
    max_height: int = 1024
    fit: Fit = "inside"
    enhance: str | None = "restore"
    strength: float = 1.0
    format: Format = "jpeg"
    quality: int = 80
    enlarge: bool = False
    background: str = "#ffffff"
    keep_copyright: bool = False

    def __post_init__(self) -> None:
        require_int_in("max_width", self.max_width, 1, MAX_SIDE)
        require_int_in("max_height", self.max_height, 1, MAX_SIDE)
        require_int_in("quality", self.quality, 1, 100)
        require_one_of("fit", self.fit, FITS)
        require_one_of("format", self.format, FORMATS)
        for name in ("enlarge", "keep_copyright"):
            require_one_of(name, getattr(self, name), (True, False))
        if not isinstance(self.background, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", self.background):
            raise RecipeError(f"background is {show_value(self.background)}; allowed is #rrggbb, such as #ffffff")
        if not is_number(self.strength) or not 0 <= self.strength <= 1:
            raise RecipeError(f"strength is {show_value(self.strength)}; allowed is a number from 0 to 1")
        # 1 and 1.0 are one Recipe, with one fingerprint.
        object.__setattr__(self, "strength", float(self.strength))
        if self.enhance is not None and (not isinstance(self.enhance, str) or not self.enhance):
            raise RecipeError(f"enhance is {show_value(self.enhance)}; allowed is a model's name, or none")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that this Recipe asks for, in their order."""
        return tuple(stage for stage in STAGES if stage != "enhance" or self.enhance)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal for equal Recipes, on any machine and version of Python."""
        canonical = json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields and their values, as `from_mapping` takes them."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make a Recipe of a mapping, such as a TOML file's table.

        Raises
        ------
        RecipeError
            If a name is unknown or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise RecipeError(f"a recipe has no field {name!r}; its fields are {', '.join(known)}")
        return cls(**values)


# `asdict` copies every value, and looks the fields up each time.
_FIELDS: Final = tuple(field.name for field in fields(Recipe))
