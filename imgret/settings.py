"""The settings: `Settings.read` takes them from IMGRET_ environment variables, once, at the start."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from imgret.errors import ImgretError
from imgret.files.cache import cache_folder


def _examples() -> Path:
    """The demo's pictures: in an installed package below it, in a checkout beside it."""
    package = Path(__file__).resolve().parent
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent / "examples"


EXAMPLES = _examples()
EXAMPLE_LIBRARY = str(EXAMPLES / "library")
SPACE_LIBRARY = "flwrlabs/caltech101"
SPACE_ENCODER = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


class SettingsError(ImgretError):
    """An environment variable has a value that cannot be used."""


class Settings(BaseSettings):
    """The variables `IMGRET_LIBRARY`, `IMGRET_SPLIT` and so on; an empty variable counts as unset.

    `space` is the id of the Space that this process runs in, owner/name, and `space_host` the host at which it is seen;
    Hugging Face sets both.
    """

    model_config = SettingsConfigDict(
        env_prefix="IMGRET_", env_ignore_empty=True, frozen=True, extra="ignore", populate_by_name=True
    )

    space: str | None = Field(default=None, validation_alias="SPACE_ID")
    space_host: str | None = Field(default=None, validation_alias="SPACE_HOST")
    library: str = Field(default_factory=lambda given: SPACE_LIBRARY if given["space"] else EXAMPLE_LIBRARY)
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    encoder: str = Field(default_factory=lambda given: SPACE_ENCODER if given["space"] else "starter")
    index: str | None = Field(default_factory=lambda given: f"{given['space']}-index" if given["space"] else None)
    pixel_size: Annotated[int, Field(ge=1, le=1024)] = 64
    limit: Annotated[int, Field(ge=1)] | None = None
    chroma_url: str | None = None
    chroma_token: SecretStr | None = None
    max_upload_mb: Annotated[int, Field(ge=1)] = 20
    cache: Path = Field(default_factory=cache_folder)

    @property
    def with_embedded_library(self) -> "Settings":
        """These settings with the embedded library and its encoder."""
        rest = dict.fromkeys(("config", "split", "revision", "limit", "index"))
        return self.model_copy(update={"library": EXAMPLE_LIBRARY, "encoder": "starter"} | rest)

    @classmethod
    def read(cls) -> "Settings":
        """The settings of this process's environment. Raises SettingsError, a sentence that names the variable."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(str(part) for part in first["loc"]).upper()
            name = name if name.startswith("SPACE_") else f"IMGRET_{name}"
            raise SettingsError(
                "{name} is {value!r}, which cannot be used: {reason}.",
                name=name,
                value=first["input"],
                reason=first["msg"],
            ) from None
