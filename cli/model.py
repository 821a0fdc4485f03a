"""`collegium model`: the federation's trained model, and the import of pretrained ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from .files import check_new_folder, write_new
from .options import HomeOption, JsonOption, existing_home
from .output import emit, facts, progress

if TYPE_CHECKING:
    from ..node.verify import Model
    from ..protocol.blocks import Block, Certificate

app = typer.Typer(help="The model as this node holds it, and pretrained ones.", no_args_is_help=True)
README = """\
The components of the model that federation {name!r} ({federation}) trained, as one member held them at height {height}.
One safetensors file a component (float32, the weights in use); config.json says how they fit together and
provenance.json which rounds they are of and who attested them: `digest` is of the integer state, `sha256` of the file.
"""


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the last certified weights, their provenance and proof; every state is folded again and checked."""
    from ..node.home import config as settings
    from ..node.store.database import Store
    from ..node.store.errors import disk_errors
    from ..node.verify import home_model

    node_home = existing_home(home)
    check_new_folder(folder)
    with progress(as_json) as step:
        model = home_model(node_home, from_bytes=True, progress=step)
    ledger = model.report.ledger
    if not model.trained:
        raise UsageError("No round is closed yet: there are no states", "Wait for the first round: `round list`.")
    with Store.open_readonly(node_home.database) as store:
        head = store.block(ledger.height)
    assert head is not None  # a closed round has a block
    with disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        files = _weights(model, folder, dict(settings.load(node_home.config).models.folders))
        _json(folder / "config.json", _config(model, files))
        proof = _provenance(model, files, head.block, head.certificate)
        _json(folder / "provenance.json", proof)
        facts = {"name": model.report.charter.name, "federation": ledger.federation.hex(), "height": ledger.height}
        write_new(folder / "README.md", [README.format(**facts).encode()])
    result: Any = {"folder": str(folder), "height": ledger.height, "components": proof["components"]}

    def people(out: Any) -> None:
        out.print(f"{len(files)} components at height {ledger.height} in {folder}")
        for name, c in model.components.items():
            out.print(f"{name}: round {c.round}, generation {c.generation}, {c.label}, digest {c.digest.hex()[:16]}")

    emit(result, as_json, people)


@app.command("import")
def import_model(
    source: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A package of a model, or a model's folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    before: Annotated[
        str | None, typer.Option("--before", metavar="TEXT", help="Put before every text that the model embeds.")
    ] = None,
    centred: Annotated[
        bool, typer.Option("--centred", help="Of a text: take away what the model makes of its own vocabulary.")
    ] = False,
    size: Annotated[
        int | None, typer.Option("--size", min=8, max=1024, help="Pixels a side that a picture is scaled to.")
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option("--blocks", min=1, max=16, help="Of EfficientNet: features after so many of its 16 blocks."),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option("--grid", min=1, max=16, help="Of EfficientNet: a mean for each cell of so many by so many."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a pretrained model once, to a folder that is the same at every member; print digest and licence."""
    del home  # every command takes it
    from ..node.learner.importing import import_model as import_into
    from ..node.pretrained.folder import weights_digest

    check_new_folder(folder)
    with progress(as_json) as step:
        asked = {"before": before, "centred": centred or None, "size": size, "blocks": blocks, "grid": grid}
        made = import_into(source, folder, {key: value for key, value in asked.items() if value is not None}, step)
    digest = weights_digest(folder).hex()
    result: Any = {
        "folder": str(folder),
        "family": made.model.model_type,
        "kind": made.model.kind,
        "width": made.model.width,
        "parameters": made.numbers,
        "licence": made.licence or None,
        "digest": digest,
    }

    def people(out: Any) -> None:
        licence = made.licence or "not stated: ask whoever published it"
        pairs = [("folder", folder), ("family", f"{made.model.model_type}, {made.model.kind}")]
        pairs += [("features", made.model.width), ("parameters", f"{made.numbers:,}")]
        facts(out, [*pairs, ("licence", licence), ("digest", digest)])

    emit(result, as_json, people)


def _weights(model: "Model", folder: Path, models: Mapping[str, Path]) -> dict[str, tuple[str, str]]:
    """Write a file for each component; return their names and SHA-256 digests by component.

    `models` are the folders of pretrained models here, which some components start from.
    """
    from math import prod

    from safetensors.numpy import save

    from ..crypto.hashing import sha256
    from ..node.pretrained.layers import checked_base
    from ..protocol.components import base_vector, weights
    from ..protocol.statistics import numbers

    files = {}
    for number, (name, component) in enumerate(sorted(model.components.items())):
        spec, at, tensors = component.spec, 0, {}
        if spec.is_statistic:
            flat = (numbers(component.state) * spec.grid_step).astype("<f4")
        else:
            charter = model.report.charter
            base = (
                checked_base(spec, charter.learning, models)
                if spec.starts_pretrained
                else base_vector(charter.seed, name, spec.tensors)
            )
            flat = weights(base, component.state, spec)
        for tensor in spec.tensors:
            size = prod(tensor.shape)
            tensors[tensor.name] = flat[at : at + size].reshape(tensor.shape)
            at += size
        # Names come from a charter: none may choose a path here, and no two may choose one.
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)
        data = save(tensors, metadata={"component": name, "state": component.digest.hex()})
        files[name] = (f"{number:02d}-{plain[:64]}.safetensors", sha256(data).hex())
        write_new(folder / files[name][0], [data])
    return files


def _config(model: "Model", files: dict[str, tuple[str, str]]) -> Any:
    from ..protocol import schema

    charter = model.report.charter
    components = [
        {**schema.to_map(component.spec), "file": files[name][0]} for name, component in model.components.items()
    ]
    return _plain(
        {
            "format": 1,
            "federation": charter.federation,
            "name": charter.name,
            "seed": charter.seed,
            "learning": schema.to_map(charter.learning),
            "components": components,
        }
    )


def _provenance(
    model: "Model", files: dict[str, tuple[str, str]], block: "Block", certificate: "Certificate"
) -> dict[str, Any]:
    from ..protocol import schema

    ledger = model.report.ledger

    def member(key: bytes) -> dict[str, str]:
        seat = ledger.roll.seats.get(key)
        return {"name": seat.name if seat is not None else "", "key": key.hex()}

    return {
        "federation": ledger.federation.hex(),
        "height": ledger.height,
        "block": ledger.block.hex(),
        "block_bytes": schema.dump(block).hex(),
        "certificate": {
            "view": certificate.view,
            "signatures": [
                {**member(signed.author), "signature": signed.signature.hex()} for signed in certificate.signatures
            ],
        },
        "components": {
            name: {
                "round": c.round,
                "generation": c.generation,
                "digest": c.digest.hex(),
                "certified": c.certified,
                "label": c.label,
                "attested_by": [member(key) for key in c.attested],
                "file": files[name][0],
                "sha256": files[name][1],
            }
            for name, c in model.components.items()
        },
        "not_held_here": sorted({spec.name for spec in model.report.charter.components} - set(model.components)),
    }


def _plain(value: Any) -> Any:
    """Return a schema's map for JSON: bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _json(path: Path, value: Any) -> None:
    write_new(path, [(json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()])
