"""Capture on a cluster of two processes: the files of one process, whatever dies on the way."""

import gc
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuit_toolkit.activations import cluster
from circuit_toolkit.activations.capture_plan import plan_capture
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.interventions import intervened, zero
from circuit_toolkit.models import load_model, on_workers
from circuit_toolkit.models.carried import put_together, taken_apart
from circuit_toolkit.progress import Stopped, reported
from circuit_toolkit.tasks import BUNDLED
from tests.cluster import a_death, calls_of, count_calls, two_workers, wait_until
from tests.killed import contents
from tests.tiny import build_tokenizer, tiny_hf

dask = pytest.importorskip("dask.distributed", reason="needs Dask: the extra `scale`")
HOW = {"batch_size": 4, "progress": False}


@pytest.fixture(scope="module")
def client():
    with two_workers() as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As a worker: products that are cut among threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task(tiny):
    return BUNDLED["ioi"](tiny, n=15, seed=0)


@pytest.fixture(scope="module")
def local(tiny, tiny_saes, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    return contents(capture(tiny, tiny_saes, task, store=folder, **HOW).folder)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def test_the_store_is_the_local_one_and_nothing_else_is_left(
    client, tiny, tiny_saes, task, local, tmp_path
):
    store = capture(tiny, tiny_saes, task, store=tmp_path / "far", client=client, **HOW)
    assert isinstance(store, ActivationStore) and len(store) == 8 and store.n_prompts == 30
    assert contents(store.folder) == local
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    capture(tiny, tiny_saes, task, store=store.folder, client=client, **HOW)  # it is all there
    shards = [path for path in before if path.suffix == ".safetensors"]
    assert shards and all(path.stat().st_mtime_ns == before[path] for path in shards)


@pytest.mark.parametrize("case", ["coordinates", "pooled", "intervened", "changed", "ids"])
def test_so_it_is_of_other_captures(client, tiny, tiny_saes, task, case, stack, tmp_path):
    model, dictionaries, prompts, more = tiny, tiny_saes, task, {}
    match case:
        case "coordinates":
            dictionaries, more = ["attn_z 0", "head_out 1"], {"shard_size": 8, "bos": True}
        case "pooled":
            more = {"positions": ["S2", "last"]}
        case "intervened":
            changes = [zero("attn_out 0"), zero("resid_post 1", features=[3])]
            model = stack.enter_context(intervened(tiny, changes, dictionaries=tiny_saes))
        case "changed":  # in memory: no name and no folder holds it
            module = tiny_hf(seed=5)
            module.transformer.h[0].mlp.c_fc.weight = torch.nn.Parameter(
                module.transformer.h[0].mlp.c_fc.weight.detach().T.contiguous().T
            )
            model, dictionaries = load_model(module, build_tokenizer()), "resid_post"
        case "ids":
            prompts = [tiny.tokenize([text]).ids[0].tolist() for text in task.texts[:9]]
    near = capture(model, dictionaries, prompts, store=tmp_path / "near", **HOW, **more)
    far = capture(
        model, dictionaries, prompts, store=tmp_path / "far", client=client, **HOW, **more
    )
    assert contents(far.folder) == contents(near.folder)


@pytest.mark.parametrize(("stage", "after"), [("captured", True), ("write_part", True)])
def test_a_worker_that_is_killed_mid_way_loses_nothing(
    client, tiny, tiny_saes, task, local, stage, after, tmp_path
):
    """When it has run its prompts, and when the shard is in its place but not yet reported."""
    with a_death(client, cluster.__name__, stage, tmp_path / "died", after):
        store = capture(tiny, tiny_saes, task, store=tmp_path / "far", client=client, **HOW)
    assert contents(store.folder) == local


@pytest.mark.parametrize("first", ["here", "there"])
def test_a_capture_that_was_stopped_goes_on_with_or_without_a_client(
    client, tiny, tiny_saes, task, local, first, tmp_path
):
    heard = []

    def report(label, done, total):
        heard.append((label, done, total))
        if done >= 12:
            raise Stopped

    with reported(report), pytest.raises(Stopped):
        where = {"client": client} if first == "there" else {}
        capture(tiny, tiny_saes, task, store=tmp_path, **where, **HOW)
    assert heard[0] == ("capture", 0, 30) and heard[-1][1] >= 12
    wait_until(lambda: not any(client.processing().values()))  # what had begun has ended
    with pytest.raises(FileFormatError, match=r"holds \d of 8 shards"):
        ActivationStore.open(tmp_path)
    where = {} if first == "there" else {"client": client}
    assert contents(capture(tiny, tiny_saes, task, store=tmp_path, **where, **HOW).folder) == local


def test_a_key_that_is_pressed_cancels_what_waits(client, tiny, tiny_saes, task, tmp_path):
    def press(label, done, total):
        if done:
            raise KeyboardInterrupt

    with reported(press), pytest.raises(KeyboardInterrupt):
        capture(tiny, tiny_saes, task, store=tmp_path, client=client, **HOW)
    wait_until(lambda: not any(client.processing().values()))
    assert len(list(tmp_path.glob("*.safetensors"))) < 8
    wait_until(lambda: {*tmp_path.glob(".*")} <= {tmp_path / ".lock"})  # a shard being written


CALLER = """
import sys
from dask.distributed import Client
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.dictionaries import load_dictionaries
from circuit_toolkit.progress import reported
from circuit_toolkit.tasks import BUNDLED
from tests.tiny import tiny_model

def report(label, done, total):
    if done:
        print(done, flush=True)
        sys.stdin.readline()  # until it is killed

address, dictionaries, store = sys.argv[1:]
model = tiny_model()
saes = load_dictionaries(model, dictionaries)
task = BUNDLED["ioi"](model, n=15, seed=0)
with Client(address) as client, reported(report):
    capture(model, saes, task, store=store, batch_size=4, progress=False, client=client)
"""


def test_a_caller_that_is_killed_loses_nothing(
    client, tiny, tiny_folder, tiny_saes, task, local, tmp_path
):
    command = [sys.executable, "-c", CALLER, client.scheduler.address, tiny_folder, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*map(str, command)], text=True, **pipes) as caller:
        assert caller.stdout.readline().strip()
        caller.kill()
    wait_until(lambda: not any(client.processing().values()))
    assert [*tmp_path.glob(".weights.*.part")]  # which the next one clears
    store = capture(tiny, tiny_saes, task, store=tmp_path, client=client, **HOW)
    assert contents(store.folder) == local


def test_a_worker_loads_the_model_once_and_lets_go_of_it(client, tiny, tiny_saes, task, tmp_path):
    client.run(count_calls, on_workers.__name__, "put_together")
    capture(tiny, tiny_saes, task, store=tmp_path, client=client, **HOW)
    loads = client.run(calls_of, on_workers.__name__)
    assert set(loads.values()) <= {0, 1} and sum(loads.values())
    wait_until(lambda: not any(client.run(plans_alive).values()))


def plans_alive():
    gc.collect()
    return sum(type(each).__name__ == "CapturePlan" for each in gc.get_objects())


def test_a_worker_of_two_threads_uses_both(tiny, tiny_saes, task, local, tmp_path, monkeypatch):
    seen, kept, plain, keep = [], [], cluster.captured, on_workers.memory_kept
    monkeypatch.setattr(on_workers, "memory_kept", lambda: kept.append(1) or keep())
    monkeypatch.setattr(
        cluster, "captured", lambda *a: seen.append(torch.get_num_threads()) or plain(*a)
    )
    settings = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    settings |= {"host": "127.0.0.1", "protocol": "tcp://"}
    with (
        dask.LocalCluster(n_workers=1, threads_per_worker=2, **settings) as threads,
        dask.Client(threads) as client,
    ):
        capture(tiny, tiny_saes, task, store=tmp_path, client=client, **HOW)
    assert seen == [2] * 8 and len(kept) == 8


def test_an_error_of_a_worker_comes_as_it_is_and_once(client, tiny, tiny_saes, task, tmp_path):
    client.run(fail, tmp_path / "tries")
    try:
        with pytest.raises(InputError, match=r"^there is no memory\.$"):
            capture(tiny, tiny_saes, task.texts[:4], store=tmp_path / "s", client=client, **HOW)
    finally:
        client.run(succeed)
    assert (tmp_path / "tries").read_text() == "x"
    store = capture(tiny, tiny_saes, task.texts[:4], store=tmp_path / "s", client=client, **HOW)
    assert store.n_prompts == 4


def fail(tries):
    def failing(*args):
        with tries.open("a") as file:
            file.write("x")
        raise InputError("there is no memory.")

    cluster.kept, cluster.captured = cluster.captured, failing


def succeed():
    cluster.captured = cluster.kept


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"client": "tcp://127.0.0.1:8786"}, "that is not asynchronous, got str"),
        ({"client": 3}, "that is not asynchronous, got int"),
        ({"store": None}, "pass store='folder' too"),
        ({"remote": True}, "remote runs the model on NDIF"),
    ],
)
def test_what_cannot_be_is_refused(client, tiny, tiny_saes, task, more, match, tmp_path):
    with pytest.raises(InputError, match=match):
        capture(tiny, tiny_saes, task, **{"store": tmp_path / "s", "client": client, **more})
    assert not (tmp_path / "s").exists()


def test_a_client_that_was_closed_is_refused(client, tiny, tiny_saes, task, tmp_path):
    other = dask.Client(client.scheduler.address)
    other.close()
    with pytest.raises(InputError, match="This client is closed. Make one anew"):
        capture(tiny, tiny_saes, task, store=tmp_path, client=other)


def test_a_model_that_is_spread_over_devices_is_refused(
    client, tiny, tiny_saes, task, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiny.hf, "hf_device_map", {"": "cpu"}, raising=False)
    with pytest.raises(InputError, match="spread over devices by device_map.*leave client= out"):
        capture(tiny, tiny_saes, task, store=tmp_path, client=client, **HOW)


def test_a_folder_that_workers_do_not_see_is_refused(client, tiny, tiny_saes, task, tmp_path):
    client.run(see, False)
    try:
        with pytest.raises(InputError, match="2 of 2 workers do not see the store .*mount it.$"):
            capture(tiny, tiny_saes, task, store=tmp_path, client=client, **HOW)
    finally:
        client.run(see, True)


def see(sees):
    from circuit_toolkit import cluster as common

    if sees:
        common.is_file = common.kept
    else:
        common.kept, common.is_file = common.is_file, lambda path: False


def test_a_worker_that_joined_later_says_what_it_lacks(tmp_path):
    sent = on_workers.Sent(b"", tmp_path / "weights", on_workers._versions())
    with pytest.raises(InputError, match="does not see .*must be one that all machines mount"):
        sent.value  # noqa: B018
    other = replace(sent, versions={**sent.versions, "torch": "1.0", "python": "3.0"})
    with pytest.raises(MismatchError, match="python '3.0' there, .*torch '1.0' there"):
        other.value  # noqa: B018


def test_what_travels_is_put_together_as_it_was(tiny, tiny_saes, task, tmp_path):
    plan = plan_capture(tiny, tiny_saes, task, "all", False, False)
    packed = taken_apart(plan, tiny, tmp_path / "weights.safetensors")
    weights = sum(p.numel() for p in tiny.hf.parameters())
    assert len(packed) < 4 * weights / 2  # no weight is among it
    other = put_together(packed, tmp_path / "weights.safetensors")
    assert other.model.hf is not tiny.hf and other.model.key == tiny.key
    head, embedding = other.model.hf.lm_head.weight, other.model.hf.transformer.wte.weight
    assert head is embedding  # they are tied
    for mine, theirs in zip(tiny.hf.parameters(), other.model.hf.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine.stride() == theirs.stride()
        assert not theirs.requires_grad and mine.data_ptr() != theirs.data_ptr()
    assert list(other.dictionaries) == list(plan.dictionaries) and other.prompts == plan.prompts
    rows = range(3)
    for site, matrix in plan.activations(rows, plan.tokenize(rows)).features.items():
        found = other.activations(rows, other.tokenize(rows)).features[site]
        np.testing.assert_array_equal(found.toarray(), matrix.toarray())
