"""What does the environment say? Read once at the door and handed down as arguments."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
EXAMPLE_LIBRARY = str(EXAMPLES / "library")
SPACE_LIBRARY = "flwrlabs/caltech101"
SPACE_ENCODER = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
SPACE_INDEX = "imgret/caltech101-clip-vit-b-32"
"""The index that README.md's YAML block preloads: the Space's own library with its encoder, once it is published."""


class SettingsError(ValueError):
    """A variable of the environment has a value that cannot be used."""


def _on_space() -> bool:
    return bool(os.environ.get("SPACE_ID"))


class Settings(BaseSettings):
    """The variables `IMGRET_LIBRARY`, `IMGRET_SPLIT` and so on; an empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix="IMGRET_", env_ignore_empty=True, frozen=True, extra="ignore")

    library: str = Field(default_factory=lambda: SPACE_LIBRARY if _on_space() else EXAMPLE_LIBRARY)
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    encoder: str = Field(default_factory=lambda: SPACE_ENCODER if _on_space() else "starter")
    index: str | None = Field(default_factory=lambda: SPACE_INDEX if _on_space() else None)
    pixel_size: Annotated[int, Field(ge=1, le=1024)] = 64
    limit: Annotated[int, Field(ge=1)] | None = None
    chroma_url: str | None = None
    chroma_token: SecretStr | None = None
    max_upload_mb: Annotated[int, Field(ge=1)] = 20
    cache: Path = Field(default_factory=lambda: Path.home() / ".cache" / "imgret")

    @classmethod
    def read(cls) -> "Settings":
        """The settings of this process's environment. Raises SettingsError, a sentence that names the variable."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = "IMGRET_" + "_".join(str(part) for part in first["loc"]).upper()
            raise SettingsError(f"{name} is {first['input']!r}, which cannot be used: {first['msg']}.") from None
