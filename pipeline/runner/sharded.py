"""Images on their way into shards: what the store stage does with a batch if the output is ``webdataset``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pipeline.catalogue import ModelCard
from pipeline.domain import Failure, Job, Outcome
from pipeline.errors import StoreError
from pipeline.runner.images import Carried, Equipment, Trial
from pipeline.runner.pieces import PieceFolder
from pipeline.runner.rows import SCHEMA, outcome_row
from pipeline.stages.codec import encode_image
from pipeline.stages.lender import Lender
from pipeline.stages.picture import Picture
from pipeline.stages.sample import make_sample, member_stem, member_url
from pipeline.stages.store import Ready, check_key, describe_stored
from pipeline.urls import redact

# What a shard tells of an image, of what every ledger has; it tells the manifest's further columns too.
_TOLD: Final = ("key", "url", "width", "height", "sha256", "recipe", "model")


class ShardEquipment(Equipment):
    """Equipment that writes the images of a batch as one piece of a shard; parameters as those of `Equipment`.

    The output of its Outcomes is the member of the piece; the driver knows what becomes of that.
    """

    def __init__(
        self,
        job: Job,
        card: ModelCard | None = None,
        storage_options: Mapping[str, Any] | None = None,
        threads: int = 1,
        lender: Lender | None = None,
    ) -> None:
        super().__init__(job, card, storage_options, threads, lender)
        self.folder = PieceFolder(job, storage_options)

    def encode(self, carried: Carried) -> Carried:
        """Encode the image, for `write_batch`."""
        key, ready = carried.item.key, None
        with Trial("store", carried.item) as trial:
            assert isinstance(carried.payload, Picture)
            check_key(key, self.job.destination)
            encoded = encode_image(carried.payload, self.job.recipe)
            ready = Ready(encoded.data, describe_stored(carried.payload, encoded, member_stem(key) + encoded.suffix))
        return trial.conclude(carried, ready)

    def write_batch(self, batch: Sequence[Carried]) -> list[Outcome]:
        """Write the encoded images of a batch together: all, or none."""
        image_by_key = {each.item.key: each.payload.data for each in batch if isinstance(each.payload, Ready)}
        described = [
            replace(each, payload=each.payload.described) if isinstance(each.payload, Ready) else each for each in batch
        ]
        outcomes = [self.conclude(carried) for carried in described]
        rows = [outcome_row(each, self.job.recipe.fingerprint) for each in outcomes if each.status == "stored"]
        if not rows:
            return outcomes
        samples = [self._sample(row, image_by_key.pop(row["key"])) for row in rows]
        try:
            piece = self.folder.write(samples, rows)
        except StoreError as error:
            return [self.conclude(_fail(carried, error)) for carried in described]
        return [replace(each, output=each.output and member_url(each.output, piece.name)) for each in outcomes]

    def _sample(self, row: Mapping[str, Any], image: bytes) -> bytes:
        # Others are to get the shard: not what is secret in a URL.
        about = {name: value for name, value in row.items() if name in _TOLD or name not in SCHEMA.names}
        about["url"] = redact(row["url"])
        stem = member_stem(row["key"])
        return make_sample(stem, row["output"].removeprefix(stem), image, about, round(time.time()))


def _fail(carried: Carried, error: StoreError) -> Carried:
    failure = Failure.from_error("store", error, subject=redact(carried.item.url))
    return carried if carried.is_over else replace(carried, payload=None, failure=failure)
