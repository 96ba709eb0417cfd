"""Makes one picture a vector, as section 3.2.1 of the course does."""

from functools import cache

import numpy as np
import numpy.typing as npt

from imgret.encoders import Encoder, load_encoder
from imgret.images import ImageSource, load_image


def get_single_image_embedding(image: ImageSource, encoder: str = "starter") -> npt.NDArray[np.float32]:
    """The embedding (d,) of one picture, of norm 1; `encoder` is a URI of `load_encoder`, loaded once a process."""
    return _encoder(encoder).embed_images([load_image(image)])[0]


@cache
def _encoder(uri: str) -> Encoder:
    return load_encoder(uri)
