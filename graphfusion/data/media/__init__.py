"""Images, sounds and videos through one safe door: real type by content, limits before decoding, one `MediaError`."""

from graphfusion.data.media.door import FloatArray, as_array, is_file_cell, media_path, naming, open_media, unwrap

__all__ = ["FloatArray", "as_array", "is_file_cell", "media_path", "naming", "open_media", "unwrap"]
