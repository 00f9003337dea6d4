"""What one image may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.domain.checks import is_number, require_int_in, show_value
from pipeline.errors import RecipeError

MIB: Final = 2**20

# Of photographs, scaled down, all formats stay below a gigabyte with so many.
_PIXELS_PER_GIB: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may take: more than that, and it fails, whatever its bytes are.

    Attributes
    ----------
    timeout_s : float
        Seconds for a step of computing, to decode and scale it, and to encode it: more than 0, at most 3600. If the
        Recipe's box has more than 4 megapixels, for each 4 of them; for a model, for each one.
    memory_mib : int
        MiB for the image in all its forms, 16 to 1,048,576. How much it is to be is told by its header, before
        anything is decoded.

    Raises
    ------
    RecipeError
        If a field is out of range.
    """

    timeout_s: float = 10.0
    memory_mib: int = 1024

    def __post_init__(self) -> None:
        if not is_number(self.timeout_s) or not 0 < self.timeout_s <= 3600:
            raise RecipeError(
                f"image_timeout is {show_value(self.timeout_s)}; allowed is more than 0 and at most 3600 seconds"
            )
        require_int_in("image_memory_mib", self.memory_mib, 16, MIB)

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return self.memory_mib * MIB

    @property
    def max_pixels(self) -> int:
        """The most pixels, width times height, that an image may have in any format: 100 million for 1 GiB."""
        return _PIXELS_PER_GIB * self.memory_mib // 1024
