"""Clusters of any class of Dask's that a settings file names, and clients that know what the settings say."""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import dask
from distributed import Client, LocalCluster
from distributed.deploy import Cluster
from distributed.security import Security

from pipeline.errors import ClusterError, SettingsError
from pipeline.runner.cluster_settings import ClusterSpec, Tls, has_resources
from pipeline.runner.starting import CLUSTER_CONFIG, starting

# As pip calls the packages whose names are not those of their modules.
_PACKAGE_BY_MODULE: Final = {
    "dask_jobqueue": "dask-jobqueue",
    "dask_kubernetes": "dask-kubernetes",
    "dask_gateway": "dask-gateway",
    "dask_cloudprovider": "dask-cloudprovider[all]",
    "dask_yarn": "dask-yarn",
    "dask_cuda": "dask-cuda",
    "dask_mpi": "dask-mpi",
}

_NAMED_CONFIG: Final[dict[str, Any]] = CLUSTER_CONFIG | {
    # A bounded window of batches is in flight, two seconds of work for each thread that is there. With Dask's five
    # seconds, a cluster that adapts would take that for too little to grow.
    "distributed.adaptive.target-duration": "500ms",
}

_SECRET: Final = re.compile("password|passwd|secret|token|key|auth|credential", re.IGNORECASE)

_LOOK_S: Final = 0.2


class PlacedClient(Client):  # type: ignore[misc]  # Dask ships no types
    """A client that knows what its cluster's settings say of the work."""

    spec = ClusterSpec("")


def connect_client(target: str | Cluster, spec: ClusterSpec, timeout_s: float) -> PlacedClient:
    """Connect to the scheduler at an address, or to that of an open cluster.

    Raises
    ------
    ClusterError
        If it does not answer, or the certificates cannot be used.
    """
    security = make_security(spec.tls) if spec.tls else None
    speaks_tls = isinstance(target, str) and target.startswith("tls://")
    if speaks_tls and not security and not dask.config.get("distributed.comm.tls.ca-file", None):
        raise ClusterError(
            f"{target!r} needs certificates: name a settings file with its address and a table [security] of ca_file, "
            "client_cert and client_key, see docs/clusters.md"
        )
    try:
        client = PlacedClient(target, timeout=timeout_s, set_as_default=False, **_given(security=security))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        # Dask raises OSError for time-outs too, ValueError for what is no address, RuntimeError for what TLS forbids.
        hint = ", or its certificates and these are not of the same authority" if speaks_tls else ""
        raise ClusterError(
            f"no Dask scheduler answers at {target!r} within {timeout_s:g} s{hint}; "
            "start one with `dask scheduler`, or leave --cluster out for a local cluster"
        ) from error
    client.spec = spec
    return client


def make_security(tls: Tls) -> Security:
    """Make Dask's description of TLS; what starts here has the same certificate as its client.

    Raises
    ------
    ClusterError
        If the files are no certificates, or do not belong together.
    """
    ca_file, certificate, key = (str(path) for path in (tls.ca_file, tls.client_cert, tls.client_key))
    pairs = {
        f"tls_{role}_{what}": path
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", certificate), ("key", key))
    }
    security = Security(tls_ca_file=ca_file, require_encryption=True, **pairs)
    try:
        security.get_connection_args("client")
    except OSError as error:
        raise ClusterError(f"cannot use the certificates {ca_file!r}, {certificate!r} and {key!r}: {error}") from error
    return security


def find_class(spec: ClusterSpec) -> Callable[..., Cluster]:
    """Import the class that a settings file names, or the function that makes a cluster, as Dask's own `SSHCluster` is.

    Raises
    ------
    SettingsError
        If it is not there, or is no cluster. The message says what to install.
    """
    module_name, _, name = spec.class_name.rpartition(".")
    top = module_name.partition(".")[0]
    if not module_name:
        raise SettingsError(f"class is {spec.class_name!r}; allowed is module and name: dask_jobqueue.SLURMCluster")
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ImportError as error:
        package = _PACKAGE_BY_MODULE.get(top, top)
        raise SettingsError(
            f"cannot import {module_name!r} for class {spec.class_name!r}: {error}; try `pip install {package!r}`"
        ) from error
    if not callable(found):
        raise SettingsError(f"{module_name!r} has no class {name!r}")
    if isinstance(found, type) and not all(
        callable(getattr(found, each, None)) for each in ("scale", "adapt", "close")
    ):
        raise SettingsError(f"{spec.class_name!r} is no Dask cluster: it has no scale, adapt and close")
    make_cluster: Callable[..., Cluster] = found
    return make_cluster


def _is_local(make_cluster: Callable[..., Cluster]) -> bool:
    return isinstance(make_cluster, type) and issubclass(make_cluster, LocalCluster)


@contextlib.contextmanager
def open_named(spec: ClusterSpec) -> Iterator[PlacedClient]:
    """Start the cluster that a settings file names; it ends with the block.

    Its workers may come much later than this returns: see `await_workers`.

    Raises
    ------
    ClusterError
        If it cannot start. The message is the class's own, without what is secret in the arguments.
    """
    make_cluster = find_class(spec)
    arguments = {**spec.arguments, **_given(security=make_security(spec.tls) if spec.tls else None)}
    with contextlib.ExitStack() as stack:
        try:
            with starting(_NAMED_CONFIG, are_workers_ours=_is_local(make_cluster)):
                cluster = stack.enter_context(make_cluster(**arguments))
                if spec.maximum is not None:
                    cluster.adapt(minimum=spec.minimum, maximum=spec.maximum)
                elif spec.workers is not None:
                    cluster.scale(spec.workers)
        except Exception as error:  # noqa: BLE001 - the class is the user's choice, and so is what it raises
            message = _without_secrets(_tell_cause(error), spec.arguments)
            raise ClusterError(f"cannot start a {spec.class_name}: {message}") from None
        client = stack.enter_context(connect_client(cluster, spec, spec.patience_s))
        yield client


def await_workers(client: Client, resources: Mapping[str, float], is_given_up: threading.Event) -> None:
    """Wait for a cluster's first worker, and for one with certain resources, as long as the settings say.

    A cluster that starts its workers only when there are tasks (minimum 0) is not waited for.

    Raises
    ------
    ClusterError
        If none comes.
    """
    spec = client.spec if isinstance(client, PlacedClient) else ClusterSpec("")
    for _ in range(max(1, round(spec.patience_s / _LOOK_S))):
        workers = client.scheduler_info()["workers"].values()
        if any(has_resources(worker["resources"], resources) for worker in workers):
            return
        if not workers and not (spec.class_name and spec.minimum != 0):
            return
        if is_given_up.wait(_LOOK_S):
            return
    if not workers:
        raise ClusterError(f"no worker of {spec.name!r} came within {spec.patience_s:g} s (patience_s)")
    wanted = ", ".join(f"{name}={amount:g}" for name, amount in resources.items())
    raise ClusterError(
        f"none of the {len(workers)} workers at {spec.name!r} has the resources that enhance_resources asks for; "
        f"start one with `dask worker --resources {wanted!r}`, or run without a model"
    )


def enhance_resources(client: Client) -> Mapping[str, float]:
    """Return what a worker of this client's cluster needs to have for the enhancement; empty: nothing."""
    return client.spec.enhance_resources if isinstance(client, PlacedClient) else {}


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _tell_cause(error: BaseException) -> str:
    """Say what went wrong at first: what Dask raises of it often says no more than that something did."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return f"{type(error).__name__}: {error}"


def _without_secrets(message: str, arguments: Mapping[str, Any]) -> str:
    for text in filter(None, _secrets_in(arguments)):
        message = message.replace(text, "***")
    return message


def _secrets_in(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    """Yield the texts that are secret by their names, in whatever way these are given."""
    match value:
        # As Kubernetes has them: {"name": "API_TOKEN", "value": "…"}.
        case {"name": str(name), "value": str(text)} if text and _SECRET.search(name):
            yield text
        case Mapping():
            for name, each in value.items():
                yield from _secrets_in(each, is_secret=is_secret or _SECRET.search(str(name)) is not None)
        case list() | tuple():
            for each in value:
                yield from _secrets_in(each, is_secret=is_secret)
        case str() if value and is_secret:
            yield value
        # As a script has them: export PASSWORD=….
        case str() if "=" in value and _SECRET.search(value.partition("=")[0]):
            yield value.partition("=")[2].strip("'\" ")
