"""The stages of the pipeline, one module each, testable without Dask or Redis.

`fetch` gets an image's bytes, `resize` makes a `Picture` of them, `enhance` runs a model over it, and `store` encodes
and writes it. What can go wrong with one image is a child of `pipeline.errors.StageError`.
"""
