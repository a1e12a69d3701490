"""Pictures from strangers: decoded, measured, made small. CPU-heavy: off the event loop."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from app.core.domain.errors import InvalidInput
from app.core.offload import run_off_loop_in_turn

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS = 40_000_000
AVATAR_SIDE = 512
AVATAR_BYTES = 5 * 1024 * 1024
QUESTION_SIDE = 1536  # more than vision models look at
QUESTION_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was decoded. `media_type` says what it really is."""

    media_type: str
    width: int
    height: int


def check_picture(data: bytes, *, field: str = "image") -> Picture:
    """Decode a picture to see that it is one. Raises InvalidInput."""
    return run_off_loop_in_turn(_check, data, field)


def make_avatar(data: bytes, *, field: str = "profile_image") -> bytes:
    """The first frame as a WebP of at most 512 × 512, without metadata. Raises InvalidInput."""
    return run_off_loop_in_turn(_avatar, data, field)


def make_question_image(data: bytes, *, field: str = "image") -> tuple[bytes, str]:
    """The first frame for a vision model, without metadata, and its suffix. Raises InvalidInput."""
    return run_off_loop_in_turn(_question_image, data, field)


def _check(data: bytes, field: str) -> Picture:
    with _open(data, field) as picture:
        _load(picture, field)
        kind = str(picture.format)
        return Picture(Image.MIME[kind], picture.width, picture.height)


def _avatar(data: bytes, field: str) -> bytes:
    with _open(data, field) as picture:
        _load(picture, field)
        upright = ImageOps.exif_transpose(picture)
        small = upright.convert("RGBA" if "A" in upright.getbands() else "RGB")
        small.thumbnail((AVATAR_SIDE, AVATAR_SIDE))
        out = io.BytesIO()
        small.save(out, "WEBP", quality=85, exif=b"", icc_profile=None)
        return out.getvalue()


def _question_image(data: bytes, field: str) -> tuple[bytes, str]:
    with _open(data, field) as picture:
        _load(picture, field)
        upright = ImageOps.exif_transpose(picture)
        is_clear = "A" in upright.getbands() or "transparency" in upright.info
        small = upright.convert("RGBA" if is_clear else "RGB")
        small.thumbnail((QUESTION_SIDE, QUESTION_SIDE))
        out = io.BytesIO()
        if is_clear:
            small.save(out, "PNG")
        else:
            small.save(out, "JPEG", quality=88, exif=b"", icc_profile=None)
        return out.getvalue(), ".png" if is_clear else ".jpg"


def _open(data: bytes, field: str) -> Image.Image:
    """The picture with its header read, and its size borne."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise InvalidInput("Upload a PNG, JPEG, WebP or GIF image.", field=field) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(field) from None
    except (OSError, ValueError, SyntaxError):
        raise _broken(field) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_many_pixels(field)
    return picture


def _load(picture: Image.Image, field: str) -> None:
    try:
        picture.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise _broken(field) from None


def _broken(field: str) -> InvalidInput:
    return InvalidInput("The image is broken.", field=field)


def _too_many_pixels(field: str) -> InvalidInput:
    return InvalidInput(
        f"The image has more than {MAX_PIXELS // 1_000_000} million pixels.", field=field
    )
