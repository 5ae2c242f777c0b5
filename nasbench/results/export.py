"""`nasbench export`: the network that a run chose, for use without nasbench.

The plain file is what `torch.fx` traced: every layer by name, then the forward pass line by line. Whatever the space,
its layers are torch's own, since a module of a space's is traced through.
"""

from __future__ import annotations

import inspect
import io
import operator
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import fx, nn

from nasbench import records
from nasbench.errors import BadInput
from nasbench.files import write_atomic
from nasbench.networks import load_network
from nasbench.plugins import build, load

#: Images of the batch on which the exported forms are compared, drawn from a normal distribution.
BATCH = 8


class Exported(NamedTuple):
    """One file and how far it is from the network: the largest difference of a logit on the batch."""

    path: Path
    difference: float
    largest: float
    """The largest logit, to judge the difference by."""

    @property
    def equal(self) -> bool:
        """Whether it differs by no more than other orders of summation explain."""
        return self.difference <= 1e-4 * max(1.0, self.largest)


class Chosen(NamedTuple):
    """A network out of a record."""

    network: nn.Module
    image: tuple[int, int, int]
    about: str
    """One sentence on what it is, and one on where its weights come from."""
    trained: bool


def choice_of(record: dict[str, Any], index: int | None) -> int:
    """Which of a run's choices is meant. Raises BadInput if that is not clear, or there is none such."""
    results = record["results"]
    if index is not None and not 0 <= index < len(results):
        raise BadInput(f"--choice {index} does not fit: the run has the choices 0 to {len(results) - 1}.")
    if index is None and len(results) > 1:
        every = ", ".join(
            f"{i}: {' '.join([*map(str, r['scenario'].values()), r['phase']])}" for i, r in enumerate(results)
        )
        raise BadInput(f"The run chose {len(results)} networks; name one with --choice ({every}).")
    return index or 0


def chosen(path: Path, index: int) -> Chosen:
    """The network of a choice of a record, on the CPU and ready to evaluate.

    Where the run kept a network its weights are loaded; where it chose an architecture alone, they are an
    initialisation from the run's seed. Raises BadInput if the kept network is gone.
    """
    record = records.read(path)
    recipe, result = records.recipe_of(record), record["results"][index]
    space = build(load("space", recipe.space), recipe.space, recipe.options[recipe.space])
    arch = space.parse(result["arch"])
    about = f"{result['arch']} of {recipe.space}, chosen by {recipe.method} on {recipe.dataset} (run {record['id']})."
    if kept := result.get("network"):
        if not (path.parent / kept).is_file():
            raise BadInput(f"{path.parent / kept} is gone; name the run's folder, or run it again with --force.")
        network = load_network(space, arch, path.parent / kept)
        return Chosen(network, space.image, f"{about} Its weights are those of the run.", True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = space.build(arch).eval()
    why = "The run chose an architecture and trained no network of it: the weights are an initialisation."
    return Chosen(network, space.image, f"{about} {why}", False)


def export(one: Chosen, folder: Path, onnx: bool = False) -> list[Exported]:
    """Write `network.py`, `network.safetensors`, `network.pt2` and, if asked for, `network.onnx`, and compare each.

    Raises BadInput if the extra for ONNX is missing, before anything is written.
    """
    runtime = _onnx() if onnx else None
    images = torch.randn(BATCH, *one.image, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = one.network(images)
    source, state = plain(one.network, one.about, one.image)
    made: dict[str, Any] = {}
    exec(compile(source, "network.py", "exec", dont_inherit=True), made)  # the text itself is what is compared
    again = made["Network"]().eval()
    again.load_state_dict(state)
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(one.network, (images,), dynamic_shapes=(batch,))
    packed = io.BytesIO()
    torch.export.save(program, packed)
    packed.seek(0)
    loaded = torch.export.load(packed).module()
    with torch.no_grad():
        found = {"network.py": again(images), "network.pt2": loaded(images)}
    content: dict[str, bytes | str] = {"network.py": source, "network.pt2": packed.getvalue()}
    if runtime:
        exported = torch.onnx.export(one.network, (images,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
        assert exported is not None
        content["network.onnx"] = exported.model_proto.SerializeToString()
        session = runtime.InferenceSession(content["network.onnx"])
        (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        found["network.onnx"] = torch.from_numpy(answer)
    write_atomic(folder / "network.safetensors", save(state))
    for name, data in content.items():
        write_atomic(folder / name, data)
    largest = float(expected.abs().max())
    return [Exported(folder / name, float((out - expected).abs().max()), largest) for name, out in found.items()]


def _onnx() -> Any:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise BadInput(f"ONNX needs {error.name}; install it with `pip install 'nasbench[export]'`.") from None
    return onnxruntime


# ---------------------------------------------------------------------- the plain file


def plain(network: nn.Module, about: str, image: tuple[int, int, int]) -> tuple[str, dict[str, torch.Tensor]]:
    """A network as Python source that imports torch alone, and its weights by the names that stand there.

    The forward pass is that of evaluation.
    """
    graph = fx.Tracer().trace(_Whole(network))
    for node in reversed(graph.nodes):
        if not node.users and node.target in (getattr, operator.getitem):  # a shape that evaluation does not need
            graph.erase_node(node)
    names: dict[str, str] = {}
    layers, state = list[str](), dict[str, torch.Tensor]()
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        target = str(node.target).removeprefix("network.")
        if target not in names:
            names[target] = name = re.sub(r"^(?=\d)", "layer", target.replace(".", "_"))
            if node.op == "call_module":
                module = network.get_submodule(target)
                layers.append(f"self.{name} = {_layer(module)}")
                state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
            else:
                tensor: torch.Tensor = _attribute(network, target)
                layers.append(f'self.register_buffer("{name}", torch.empty({tuple(tensor.shape)}))')
                state[name] = tensor.detach()
        node.target = names[target]
    code = graph.python_code("self").src
    body = re.sub(r";  \w+ = .*", "", code)  # torch.fx frees each value after its last use
    body = re.sub(r"def forward\(self, (\w+) .*:", r"def forward(self, \1):", body).strip()
    body = body.replace("torch._C._nn.", "nn.functional.")
    source = TEMPLATE.format(
        about=about,
        image=f"[B,{','.join(map(str, image))}]",
        layers="\n        ".join(layers),
        forward="\n    ".join(body.splitlines()),
    )
    return source, {name: value.contiguous().clone() for name, value in state.items()}


class _Whole(nn.Module):
    """A network called with images alone, so that its other arguments are no inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits


def _attribute(network: nn.Module, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(network.get_submodule(owner), name)


def _layer(module: nn.Module) -> str:
    """The expression that makes a layer of torch's: what its constructor takes and it keeps, where not the default.

    Its own text form will not do: it leaves out what changes the numbers, say of a pooling how the border counts.
    """
    kind, positional, named = type(module).__name__, list[str](), list[str]()
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name in ("device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            raise BadInput(f"A plain file cannot hold the layer {kind}, which does not keep its {name}.")
        value = getattr(module, name)
        if name == "bias":
            value = value is not None or not getattr(module, "affine", True)
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if parameter.default is parameter.empty:
            positional.append(repr(value))
        elif value != parameter.default:
            named.append(f"{name}={value!r}")
    return f"nn.{kind}({', '.join(positional + named)})"


TEMPLATE = '''"""{about}

    network = load()
    logits = network(images)  # float32 {image} -> [B,classes]
"""

from pathlib import Path

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        {layers}

    {forward}


def load(weights=Path(__file__).with_name("network.safetensors") if "__file__" in globals() else None):
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(weights))
    return network.eval()
'''
