"""A pretend accelerator: a device of its own, whose tensors are held in the memory of the CPU.

To mix its tensors with the CPU's raises, and so does turning one into numpy, as on CUDA. It is what
torch calls a backend in Python; what it cannot do is in `tests/devices/test_devices.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
COPIES = {"copy_", "_to_copy", "_copy_from", "_copy_from_and_resize"}  # from device to device


class Pretend(torch.Tensor):
    """A tensor on the pretend device; `held` is its value."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretend:
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Pretend({self.held!r})"

    def tolist(self) -> Any:
        """Return numbers, as from every device; torch has it for no tensor class of others."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, *args, **(kwargs or {}))


def compute(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation on what tensors hold, and refuse what CUDA refuses."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    here = [x for x in tensors if isinstance(x, Pretend)]
    name = func._schema.name.partition("::")[2]
    wanted = kwargs.get("device")
    there = bool(here) if wanted is None else torch.device(wanted).type == NAME
    check(name, args, tensors)
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
    held = tree_map(lambda x: x.held if isinstance(x, Pretend) else x, (args, kwargs))
    found = func(*held[0], **held[1])
    own = {id(x.held): x for x in here}  # of an operation in place

    def wrapped(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not there or name == "_copy_from":
            return x
        return own[id(x)] if id(x) in own else Pretend(x)

    return args[0] if name == "copy_" else tree_map(wrapped, found)


def check(name: str, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    """Refuse tensors of two devices, but for numbers, copies and indices on the CPU."""
    here = [x for x in tensors if isinstance(x, Pretend)]
    others = [x for x in tensors if not isinstance(x, Pretend) and x.ndim]
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        values = args[2] if isinstance((*args, None, None)[2], torch.Tensor) else args[0]
        others = [x for x in (args[0], values) if not isinstance(x, Pretend) and x.ndim]
    if here and others and name not in COPIES:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu ({name})"
        )


# What the fallback does not reach: a copy within `torch.tensor(..., device=...)`, and what torch
# makes empty first, to give it a size later.
DIRECT = ("copy_", "arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace")


@cache
def device() -> torch.device:
    """Return the pretend device, which is made when it is first asked for."""
    _setup_privateuseone_for_python_backend(NAME)
    makes, direct = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
    makes.fallback(compute, "PrivateUse1")  # zeros, full, ...
    for name in DIRECT:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
        direct.impl(name, partial(compute, operation), "PrivateUse1")
    LIBRARIES.extend((makes, direct))
    return torch.device(NAME, 0)


LIBRARIES: list[torch.library.Library] = []  # what is registered goes when its library goes


def split(module: Any, blocks: str, rest: Sequence[str]) -> Any:
    """Put all blocks but the first, and the rest, on the pretend device, as `device_map` does."""
    far = [*list(module.get_submodule(blocks))[1:], *map(module.get_submodule, rest)]
    for each in far:
        each.to(device())
        each.register_forward_pre_hook(inputs_follow, with_kwargs=True)
    far[-1].register_forward_hook(lambda _, __, y: y.cpu())
    module.hf_device_map = {"embed": "cpu", "rest": str(device())}
    return module


def inputs_follow(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
    to = next(module.parameters()).device
    return tree_map(lambda x: x.to(to) if isinstance(x, torch.Tensor) else x, (args, kwargs))
