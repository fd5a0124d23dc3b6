"""What holds a model, as it travels to other processes: tensors in a file, the rest as bytes.

It is the very model, also one that was made or changed in memory, with its interventions and
dictionaries, however large: each process reads the file, and no tensor passes through a scheduler.
The bytes hold code, as all that Dask sends does; they go by its connection and into no file.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import write_file
from circuit_toolkit.models.model import Model

Told = tuple[str, bool, str, tuple[int, ...]]  # name, whether a parameter, device, strides


def taken_apart(value: Any, model: Model, weights: Path) -> bytes:
    """Write all tensors of what holds a model to a file, and return everything else."""
    from cloudpickle import Pickler  # comes with Dask
    from safetensors.torch import save_file

    if model.remote or hasattr(model.hf, "hf_device_map"):
        where = "on NDIF" if model.remote else "spread over devices by device_map"
        raise InputError(
            f"The weights of {model.name} are {where}: a cluster wants a model on one device, "
            "load_model(name, device=...). Or leave client= out."
        )
    kind, found = type(model.nn), _Tensors()

    class _Pickler(Pickler):
        def persistent_id(self, value: Any) -> Told | None:  # pyright: ignore
            return found.told(value) if isinstance(value, Tensor) else None

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is kind:  # nnsight's wrapper belongs to its process
                return _wrapped, (kind, obj._module, obj.tokenizer, obj.task)
            return super().reducer_override(obj)

    into = io.BytesIO()
    _Pickler(into, protocol=5).dump(value)
    write_file(weights, lambda part: save_file(found.values, part))
    return into.getvalue()


def put_together(packed: bytes, weights: Path) -> Any:
    """Return what was taken apart, each tensor on the device that it was on."""
    import beartype  # noqa: F401  # before nnsight, as in load_model
    from safetensors import safe_open

    made: dict[Told, Tensor] = {}
    with safe_open(weights, framework="pt") as file:

        class _Unpickler(pickle.Unpickler):
            def persistent_load(self, told: Told) -> Tensor:
                if told not in made:  # else what is tied would come apart
                    made[told] = _tensor(file.get_tensor(told[0]), told)
                return made[told]

        return _Unpickler(io.BytesIO(packed)).load()


class _Tensors:
    """Tensors by name, each once, so that what shares a weight goes on sharing it."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self._told: dict[int, tuple[Tensor, Told]] = {}  # the tensor keeps its id its own
        self._storages: set[int] = set()

    def told(self, tensor: Tensor) -> Told:
        if id(tensor) not in self._told:
            name = str(len(self.values))
            self.values[name] = self._apart(tensor.detach())
            strides = tensor.stride() if 0 not in tensor.stride() else ()
            is_parameter = isinstance(tensor, nn.Parameter)
            self._told[id(tensor)] = tensor, (name, is_parameter, str(tensor.device), strides)
        return self._told[id(tensor)][1]

    def _apart(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the CPU whose memory no other one has: the file wants it so."""
        value = tensor.cpu().contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in self._storages or storage.nbytes() != value.nbytes:
            value = value.clone()
        self._storages.add(value.untyped_storage().data_ptr())
        return value


def _tensor(value: Tensor, told: Told) -> Tensor:
    """Return a tensor as it lay in memory: products of transposed weights round otherwise."""
    _, is_parameter, device, strides = told
    size = value.shape
    if strides:
        made = torch.empty_strided(size, strides, dtype=value.dtype, device=device).copy_(value)
    else:
        made = value.to(device, copy=True)
    return nn.Parameter(made, requires_grad=False) if is_parameter else made


def _wrapped(kind: Any, module: nn.Module, tokenizer: Any, task: str) -> Any:
    return kind(module, tokenizer=tokenizer, task=task, device=module.device)
