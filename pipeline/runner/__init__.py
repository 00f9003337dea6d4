"""One job on a Dask cluster: the batch tasks, the driver, the worker plugin, the choice of cluster, the ledger."""
