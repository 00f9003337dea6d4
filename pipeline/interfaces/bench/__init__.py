"""The benchmark: what the cluster, the state and the ledger cost, against a bare loop of the same codecs."""
