"""A folder of photos: read, looked over, and cut to the sizes that a base learns from."""

from persona.photos.advice import advise
from persona.photos.buckets import Size, buckets, crops, masks, middle
from persona.photos.reading import Photo, files, picture, pictures, read

__all__ = ["Photo", "Size", "advise", "buckets", "crops", "files", "masks", "middle", "picture", "pictures", "read"]
