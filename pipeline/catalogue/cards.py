"""The catalogue: every model that a Recipe may name, the shipped ones and those that an operator has registered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pipeline.catalogue.registry import read_registry
from pipeline.errors import ModelError

WEIGHTS: Final = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model without loading it.

    Attributes
    ----------
    name : str
        As in a Recipe.
    description : str
        One line for users.
    scale : {1, 2}
        Pixels of output a side for each pixel of input.
    sha256 : str
        Of the network's file, in hexadecimal digits.
    url : str
        The network's ``.keras`` file: a path, or a URL that fsspec opens.
    parameters : int or None
        Weights in the network; None until a registered one has been inspected.
    halo : int or None
        Pixels on each side that an output pixel may depend on (the radius of the receptive field), rounded up to a
        multiple of the network's stride, if it has one; None until a registered one has been inspected.
    precision : {"f32", "bf16"}
        What OpenVINO may compute its convolutions in, where the processor can.
    figures : str
        What it was measured to gain, for users; empty if nothing is known.
    """

    name: str
    description: str
    scale: int
    sha256: str
    url: str
    parameters: int | None = None
    halo: int | None = None
    precision: Literal["f32", "bf16"] = "f32"
    figures: str = ""

    @property
    def label(self) -> str:
        """Name and start of the hash, ``name@1a2b3c4d``: what the ledger keeps."""
        return f"{self.name}@{self.sha256[:8]}"


def _shipped(name: str, description: str, **facts: object) -> ModelCard:
    return ModelCard(name, description, url=str(WEIGHTS / f"{name}.keras"), **facts)  # type: ignore[arg-type]


_SHIPPED: Final = (
    _shipped(
        "restore",
        "removes noise, JPEG artefacts and slight blur; clean photographs stay nearly as they are",
        scale=1,
        sha256="d7422817741c1b61fd25c1b5510c2f975fe7fe8429a86d0514ee5a61bdd071fd",
        parameters=176_568,
        halo=56,
        precision="bf16",
        figures="+4.3 dB on mixed damage of held-out photographs, +1.2 dB on others with more detail; see its card",
    ),
    _shipped(
        "upscale2x",
        "doubles the size of images that are smaller than the box, sharper than interpolation",
        scale=2,
        sha256="e52aa2f5727fc71addc6429a2d8cc990633ab9f8f8dac28862b8a4e341bfb5f1",
        parameters=50_928,
        halo=7,
        precision="bf16",
        figures="+1.1 dB over Lanczos on held-out photographs that were halved",
    ),
    _shipped(
        "sharpen",
        "an unsharp mask (sigma 1 pixel, amount 0.6) with fixed weights: crisper edges, nothing learnt",
        scale=1,
        sha256="c97e9600583f1c6a3674c558801177ef9f33301de498b901f84defe31381c28c",
        parameters=147,
        halo=3,
    ),
)


def list_models(registry: Path | None = None) -> list[ModelCard]:
    """List the catalogue: the shipped models, then the registered ones by name.

    Parameters
    ----------
    registry : Path, optional
        The operator's settings file, see `pipeline.catalogue.registry`; none if it does not exist.

    Raises
    ------
    ModelError
        If the file cannot be read, or registers something that is no model.
    """
    registered = [
        ModelCard(name, entry.description, entry.scale, entry.sha256, entry.url)
        for name, entry in sorted(read_registry(registry).items() if registry else ())
    ]
    for card in registered:
        if any(card.name == shipped.name for shipped in _SHIPPED):
            raise ModelError(f"{str(registry)!r} registers {card.name!r}, a name of the package; choose another one")
    return [*_SHIPPED, *registered]


def on_this_machine(card: ModelCard) -> ModelCard:
    """Return the card of a model, of a shipped one with the file of this installation: another machine's is elsewhere.

    Its hash stays as it was, so that a file which differs is refused.
    """
    own = next((shipped for shipped in _SHIPPED if shipped.name == card.name), card)
    return replace(card, url=own.url)


def find_model(name: str, registry: Path | None = None) -> ModelCard:
    """Look a model up.

    Raises
    ------
    ModelError
        If the catalogue has none of that name.
    """
    cards = list_models(registry)
    for card in cards:
        if card.name == name:
            return card
    raise ModelError(f"no model is named {name!r}; there are: {', '.join(card.name for card in cards)}")
