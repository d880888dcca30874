"""GPUs that are not there: tensors without numbers on ``cuda:1``, and a watch over what is done with them.

PyTorch's FakeTensorMode carries shapes, number formats and devices through the real code and raises where an operation
is given two devices or two formats that do not go together, as a GPU would. Nothing is computed, so models have their
true widths. What FakeTensorMode knows nothing of is put in here: the current device of every thread, pinned memory,
the free memory, and the capability.
"""

import contextlib
import ctypes
import threading
import types
import weakref
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from transformers import core_model_loading

_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "unique_dim", "equal")
"""Operations whose result's size or value the host must know."""
SHARED_MEMORY = {(7, 5): 65_536, (8, 0): 166_912, (8, 9): 101_376, (9, 0): 232_448}
"""Bytes of shared memory that a block of threads can have, by capability."""

_COPIES = ("to", "_to_copy", "copy_")


class Current(threading.local):
    """The current device of every thread, 0 until it is set, as CUDA has it; and who watches the thread."""

    device = 0
    watch = None

    def exchange(self, device):
        """Set it and return what it was."""
        before = self.device
        if device >= 0:
            self.device = device
        return before


class Watch(TorchDispatchMode):
    """What is done on the pretended GPUs.

    Attributes
    ----------
    live, peak : dict
        Bytes that tensors take, and have taken at most, by device.
    room : int or None
        Bytes of every device; beyond them tensors raise as a GPU's allocator does.
    waits : list of str
        Operations for which the host waits until the GPU is idle.
    devices : set of str
        GPUs that were touched.
    pinned_for : set of int
        Current devices when memory was pinned.
    elsewhere : Counter
        Operations that ran while another device than their tensors' was the thread's current one.
    """

    def __init__(self, current):
        super().__init__()
        self.current, self.room = current, None
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.live, self.peak, self._sizes = Counter(), Counter(), {}
        self.waits, self.devices, self.pinned_for, self.elsewhere = [], set(), set(), Counter()

    def start(self):
        """Forget what has been, but for the memory that is taken."""
        self.peak = Counter(self.live)
        self.waits, self.devices, self.pinned_for, self.elsewhere = [], set(), set(), Counter()

    @contextlib.contextmanager
    def in_this_thread(self):
        """Pretend in the calling thread, which PyTorch's modes are bound to; tensors are this watch's own."""
        before, self.current.watch = self.current.watch, self
        try:
            with self.fake, self:
                yield self
        finally:
            self.current.watch = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        name = func.overloadpacket.__name__
        for tensor in made:
            if tensor.device.type == "cuda":
                self._account(tensor)
        on_gpus = {tensor.device for tensor in (*given, *made) if tensor.device.type == "cuda"}
        self.devices |= {str(device) for device in on_gpus}
        for device in on_gpus:
            if device.index != self.current.device:
                self.elsewhere[f"{name} on {device} while cuda:{self.current.device} was current"] += 1
        if on_gpus:
            self._note_wait(name, given, made, _asked_for(func, args, kwargs, "non_blocking"))
        return result

    def _note_wait(self, name, given, made, non_blocking):
        kinds = {tensor.device.type for tensor in (*given, *made)}
        if name in _WAITS or (name == "index" and any(tensor.dtype == torch.bool for tensor in given[1:])):
            self.waits.append(name)
        elif name in _COPIES and kinds == {"cpu", "cuda"}:
            source = given[-1]
            if source.device.type == "cuda":
                self.waits.append("copy to the host")
            elif not getattr(source, "is_pretended_pinned", False):
                self.waits.append("copy to the GPU from memory that is not pinned")
            elif not non_blocking:
                self.waits.append("copy to the GPU that the host waits for")

    def _account(self, tensor):
        storage = tensor.untyped_storage()
        key, device = storage._cdata, str(tensor.device)
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live[device] += self._sizes[key]
        weakref.finalize(storage, self._forget, key, device)
        if self.room is not None and self.live[device] > self.room:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {self._sizes[key]} bytes were asked for on {device}")
        self.peak[device] = max(self.peak[device], self.live[device])

    def _forget(self, key, device):
        self.live[device] -= self._sizes.pop(key, 0)


def _asked_for(func, args, kwargs, name):
    """Return an argument of an operation by its name, however it was given."""
    names = [argument.name for argument in func._schema.arguments]
    if name in kwargs or name not in names:
        return kwargs.get(name)
    return args[names.index(name)] if names.index(name) < len(args) else None


@torch.no_grad()
def _apply(module, change, recurse=True):
    """Do what `torch.nn.Module._apply` does; FakeTensors cannot be exchanged in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(change(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module


def _deepcopy(tensor, memo):
    copied = tensor.detach().clone()
    return nn.Parameter(copied, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied


def _materialised(weight, device=None, dtype=None):
    """Read a weight from its file, which takes a tensor of this world, and copy it to a pretended device."""
    with _disable_current_modes():
        weight = weight[...]
    return weight.to(device=device, dtype=dtype)


_numpy, _original_deepcopy = torch.Tensor.numpy, torch.Tensor.__deepcopy__


def _as_numpy(tensor, *arguments, **options):
    """Return zeros for a tensor without numbers."""
    if isinstance(tensor, FakeTensor):
        assert tensor.device.type == "cpu", "numpy takes tensors of the host only"
        return np.zeros(tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
    return _numpy(tensor, *arguments, **options)


@contextlib.contextmanager
def pretend_gpus(guard, capability, free_bytes, n_devices=2):
    """Pretend GPUs of a compute capability with so much free memory; yields the `Watch`.

    Parameters
    ----------
    guard : str
        `guard.cpp`, compiled.
    capability : tuple of int
        For example (7, 5), a T4.
    free_bytes : int
        Of every device, before anything is loaded.
    """
    ctypes.CDLL(guard)
    current = Current()
    watch = Watch(current)

    def index(device=None):
        return current.device if device is None else torch.device(device).index or 0

    def taken(device=None):
        return current.watch.live[f"cuda:{index(device)}"] if current.watch else 0

    def pin(tensor, *_):
        current.watch.pinned_for.add(current.device)
        copied = tensor.clone()
        copied.is_pretended_pinned = True
        return copied

    properties = types.SimpleNamespace(
        major=capability[0], minor=capability[1], shared_memory_per_block_optin=SHARED_MEMORY[capability]
    )
    cuda = {
        "get_device_properties": lambda device=None: properties,
        "device_count": lambda: n_devices,
        "current_device": lambda: current.device,
        "set_device": lambda device: current.exchange(index(device)),
        "_exchange_device": current.exchange,
        "_maybe_exchange_device": current.exchange,
        "get_device_capability": lambda device=None: capability,
        "mem_get_info": lambda device=None: (free_bytes - taken(device), 16 * 2**30),
        "memory_allocated": taken,
        "memory_reserved": taken,
        "max_memory_allocated": lambda device=None: watch.peak[f"cuda:{index(device)}"],
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: watch.waits.append("synchronize"),
    }
    tensors = {
        "pin_memory": pin,
        "numpy": _as_numpy,
        "__deepcopy__": lambda tensor, memo: (
            _deepcopy(tensor, memo) if isinstance(tensor, FakeTensor) else _original_deepcopy(tensor, memo)
        ),
    }
    submit = ThreadPoolExecutor.submit

    def at_once(pool, function, *arguments, **options):
        """Do in the thread that pretends what others would do without pretence."""
        if current.watch is None:
            return submit(pool, function, *arguments, **options)
        future = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(ThreadPoolExecutor, "submit", at_once))
        stack.enter_context(mock.patch.object(core_model_loading, "_materialize_copy", _materialised))
        for name, value in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for name, value in tensors.items():
            stack.enter_context(mock.patch.object(torch.Tensor, name, value))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        # A tensor of one number would keep it, and be copied to the GPU in earnest.
        stack.enter_context(mock.patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0))
        yield stack.enter_context(watch.in_this_thread())
