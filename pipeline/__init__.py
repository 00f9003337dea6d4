"""Fetch, resize, enhance and store whole collections of images."""
