"""What kind of media a file is by its name."""

from __future__ import annotations

from pathlib import PurePath

from graphfusion.data.media.containers import VIDEO_ENDINGS

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
AUDIO_ENDINGS = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif"}


KINDS = {"image": IMAGE_ENDINGS, "sound": AUDIO_ENDINGS, "video": VIDEO_ENDINGS}


def media_kind(path: PurePath) -> str | None:
    """`image`, `sound`, `video` or None, by the ending of a file's name."""
    ending = path.suffix.lower()
    return next((kind for kind, endings in KINDS.items() if ending in endings), None)
