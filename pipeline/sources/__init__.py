"""Sources: what the user points at becomes a lazy stream of Items that can be read again."""

from pipeline.sources.keys import key_for_url
from pipeline.sources.opening import Collection, first_item, folder_of, open_collection

__all__ = ["Collection", "first_item", "folder_of", "key_for_url", "open_collection"]
