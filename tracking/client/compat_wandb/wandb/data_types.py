"""Images, tables, histograms and other media: written to a file that is kept as an artifact of the run."""

import hashlib
import json
import os
import shutil
import struct
import wave
import zlib

from ._plain import array_of, as_path, is_array, json_safe, n_elements, plain
from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional, Sequence

__all__ = ["Audio", "Histogram", "Html", "Image", "Media", "Molecule", "Object3D", "Plotly", "Table", "Video"]


class Media:
    """Something that is kept as a file. Subclasses say where and how."""

    _folder = "file"
    _suffix = ".bin"

    _source: "Optional[str]" = None
    """A file that already is what is to be kept."""

    def _content(self) -> bytes:
        raise Error(f"this wandb.{type(self).__name__} has no content")

    def _facts(self) -> "dict[str, Any]":
        """What the summary tells of it."""
        return {"_type": self._folder + "-file"}

    def _write(self, folder: str, key: str, step: int, place: str = "") -> "tuple[str, str]":
        """Write it below `folder`; the file, and the artifact path of the folder it belongs in."""
        if self._source is not None:
            with open(self._source, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
        else:
            content = self._content()
            digest = hashlib.sha256(content).hexdigest()
        name = f"{as_path(key)}_{step}{place}_{digest[:20]}{self._suffix}"
        path = os.path.join(folder, "media", self._folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if self._source is not None:
            shutil.copyfile(self._source, path)
        else:
            with open(path, "wb") as file:
                file.write(content)
        return path, os.path.dirname(os.path.join("media", self._folder, name)).replace(os.sep, "/")

    def _take_file(self, path: "Any") -> None:
        self._source = os.path.abspath(os.fspath(path))
        self._suffix = os.path.splitext(self._source)[1] or self._suffix
        if not os.path.isfile(self._source):
            raise ValueError(f"wandb.{type(self).__name__}: there is no file {self._source}")


class Image(Media):
    """A file, a PIL image, a matplotlib figure, an array or tensor. Boxes, masks and classes are kept beside the caption."""

    _folder, _suffix = "images", ".png"

    def __init__(
        self, data_or_path: "Any", mode: "Optional[str]" = None, caption: "Optional[str]" = None, grouping: "Optional[int]" = None, **extra: "Any"
    ) -> None:
        self.caption = caption
        self.mode = mode
        self.format = str(extra.pop("file_type", None) or "png")
        self._extra = {name: plain(value) for name, value in extra.items() if value is not None and name not in {"normalize", "classes"}}
        if isinstance(data_or_path, Image):
            self._bytes: "bytes" = data_or_path._bytes
            self._source, self._suffix = data_or_path._source, data_or_path._suffix
            return
        self._bytes = b""
        if isinstance(data_or_path, (str, os.PathLike)):
            self._take_file(data_or_path)
            return
        # At once: the script may draw on the same figure or array again.
        if is_array(data_or_path):
            self._bytes = _png(data_or_path)
            return
        self._suffix = f".{self.format}"
        self._bytes = _saved(data_or_path, self.format)

    def _content(self) -> bytes:
        return self._bytes

    def _facts(self) -> "dict[str, Any]":
        return dict(self._extra, _type="image-file", caption=self.caption)


class Histogram(Media):
    """Counts and bin edges, or a sequence to count."""

    _folder, _suffix = "histograms", ".json"
    MAX_LENGTH = 512

    def __init__(self, sequence: "Any" = None, np_histogram: "Any" = None, num_bins: int = 64) -> None:
        if np_histogram is not None:
            if len(np_histogram) != 2:
                raise ValueError("Expected np_histogram to be a tuple of (values, bin_edges) or sequence to be specified")
            self.histogram, self.bins = plain(np_histogram[0]), plain(np_histogram[1])
        else:
            self.histogram, self.bins = _counted(list(_leaves(sequence)), num_bins)
        if len(self.histogram) > self.MAX_LENGTH:
            raise ValueError(f"The maximum length of a histogram is {self.MAX_LENGTH}")
        if len(self.histogram) + 1 != len(self.bins):
            raise ValueError("len(bins) must be len(histogram) + 1")

    def _content(self) -> bytes:
        return _json(self._facts())

    def _facts(self) -> "dict[str, Any]":
        return {"_type": "histogram", "values": self.histogram, "bins": self.bins}


class Table(Media):
    """Rows under names. Media in cells are kept as files of their own when the table is logged."""

    _folder, _suffix = "table", ".table.json"

    def __init__(
        self,
        columns: "Optional[Sequence[Any]]" = None,
        data: "Any" = None,
        rows: "Any" = None,
        dataframe: "Any" = None,
        dtype: "Any" = None,
        optional: "Any" = True,
        allow_mixed_types: bool = True,
        log_mode: str = "IMMUTABLE",
    ) -> None:
        frame = dataframe if dataframe is not None else data if hasattr(data, "columns") and hasattr(data, "itertuples") else None
        if frame is not None:
            self.columns = [str(name) for name in frame.columns]
            self.data: "list[list[Any]]" = [list(row) for row in frame.itertuples(index=False)]
            return
        self.columns = list(columns) if columns is not None else ["Input", "Output", "Expected"]
        self.data = []
        for row in data if data is not None else rows if rows is not None else []:
            self.add_data(*row)

    def add_data(self, *data: "Any") -> None:
        """Add a row."""
        if len(data) != len(self.columns):
            raise ValueError(f"This table expects {len(self.columns)} columns: {self.columns}, found {len(data)}")
        self.data.append(list(data))

    add_row = add_data

    def add_column(self, name: str, data: "Any") -> None:
        """Add a column: a value for each row."""
        values = list(data)
        if self.data and len(values) != len(self.data):
            raise ValueError(f"Expected length {len(self.data)}, found {len(values)}")
        self.data = [[*row, value] for row, value in zip(self.data, values)] if self.data else [[value] for value in values]
        self.columns.append(name)

    def get_column(self, name: str, convert_to: "Optional[str]" = None) -> "Any":
        """A column's values; `convert_to="numpy"` as an array."""
        place = self.columns.index(name)
        values = [row[place] for row in self.data]
        if convert_to == "numpy":
            import numpy as np  # type: ignore[import-not-found,unused-ignore]

            return np.array(values)
        return values

    def get_dataframe(self) -> "Any":
        """As pandas has it."""
        import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]

        return pd.DataFrame.from_records(self.data, columns=self.columns)

    def iterrows(self) -> "Iterator[tuple[int, list[Any]]]":
        """Each row with its number."""
        return iter(enumerate(self.data))

    def _content(self) -> bytes:
        rows = [[cell._facts() if isinstance(cell, Media) else plain(cell) for cell in row] for row in self.data]
        return _json({"columns": plain(self.columns), "data": rows})

    def _facts(self) -> "dict[str, Any]":
        return {"_type": "table-file", "nrows": len(self.data), "ncols": len(self.columns)}

    def _inner(self) -> "Iterator[Media]":
        for row in self.data:
            for cell in row:
                if isinstance(cell, Media):
                    yield cell


class Audio(Media):
    """A file, or samples between -1 and 1 with their rate."""

    _folder, _suffix = "audio", ".wav"

    def __init__(self, data_or_path: "Any", sample_rate: "Optional[int]" = None, caption: "Optional[str]" = None) -> None:
        self.caption = caption
        self._samples: "Any" = None
        if isinstance(data_or_path, (str, os.PathLike)):
            self._take_file(data_or_path)
            return
        if sample_rate is None:
            raise ValueError('Argument "sample_rate" is required when instantiating wandb.Audio with raw data.')
        self._samples, self._rate = plain(data_or_path), int(sample_rate)

    def _content(self) -> bytes:
        import io

        rows = [row if isinstance(row, list) else [row] for row in self._samples]
        words = [int(max(-1.0, min(1.0, float(sample))) * 32767) for row in rows for sample in row]
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(len(rows[0]) if rows else 1)
            file.setsampwidth(2)
            file.setframerate(self._rate)
            file.writeframes(struct.pack(f"<{len(words)}h", *words))
        return out.getvalue()

    def _facts(self) -> "dict[str, Any]":
        return {"_type": "audio-file", "caption": self.caption}


class _File(Media):
    """A file or an open text, kept as it is."""

    def __init__(self, data_or_path: "Any", caption: "Optional[str]" = None, **_options: "Any") -> None:
        self.caption = caption
        self._bytes = b""
        if hasattr(data_or_path, "read"):
            read = data_or_path.read()
            self._bytes = read.encode() if isinstance(read, str) else read
        elif isinstance(data_or_path, (str, os.PathLike)):
            self._take_file(data_or_path)
        else:
            self._bytes = self._of(data_or_path)

    def _of(self, data: "Any") -> bytes:
        raise UnsupportedMediaError(type(self).__name__, data)

    def _content(self) -> bytes:
        return self._bytes


class UnsupportedMediaError(Error):
    """Media made of something that only W&B's own package knows how to write."""

    def __init__(self, kind: str, data: "Any") -> None:
        super().__init__(f"wandb.{kind} takes a file here, not {type(data).__name__}: write one and pass its path")


class Video(_File):
    """A file."""

    _folder, _suffix = "videos", ".mp4"


class Molecule(_File):
    """A file."""

    _folder, _suffix = "molecule", ".pdb"


class Object3D(_File):
    """A file, or points as an array or list."""

    _folder, _suffix = "object3D", ".pts.json"

    def _of(self, data: "Any") -> bytes:
        return _json(plain(data))


class Html(_File):
    """Text, or a file of it."""

    _folder, _suffix = "html", ".html"

    def __init__(self, data: "Any", inject: bool = True, data_is_not_path: bool = False) -> None:
        is_text = isinstance(data, str) and (data_is_not_path or not os.path.isfile(data))
        if not is_text:
            super().__init__(data)
            return
        self.caption, self._bytes = None, data.encode()


class Plotly(_File):
    """A figure of plotly's, as its JSON; a matplotlib figure becomes an image when it is logged."""

    _folder, _suffix = "plotly", ".plotly.json"

    def _of(self, data: "Any") -> bytes:
        return str(data.to_json()).encode() if hasattr(data, "to_json") else _json(plain(data))


def media_of(value: "Any") -> "Optional[Media]":
    """What a script logs as it is, and W&B keeps as media; None for anything else."""
    if isinstance(value, Media):
        return value
    if is_array(value) and not hasattr(value, "columns"):
        try:
            return Histogram(value) if n_elements(value) > 1 else None
        except (TypeError, ValueError, OverflowError):  # texts, NaN, objects: kept as plain values
            return None
    if hasattr(value, "to_plotly_json"):
        return Plotly(value)
    if hasattr(value, "itertuples") and hasattr(value, "columns"):
        return Table(dataframe=value)
    if hasattr(value, "savefig") or (hasattr(value, "save") and hasattr(value, "getbands")):
        return Image(value)
    return None


def _json(value: "Any") -> bytes:
    return json.dumps(json_safe(value)).encode()


def _leaves(values: "Any") -> "Iterator[float]":
    for value in plain(values) if not isinstance(values, (int, float)) else [values]:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield float(value)


def _counted(values: "list[float]", n_bins: int) -> "tuple[list[int], list[float]]":
    """As `numpy.histogram` counts: equal bins, the last one closed."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = [low + (high - low) * place / n_bins for place in range(n_bins)] + [high]
    counts = [0] * n_bins
    for value in values:
        counts[min(n_bins - 1, int((value - low) / (high - low) * n_bins))] += 1
    return counts, edges


def _saved(image: "Any", kind: str) -> bytes:
    import io

    out = io.BytesIO()
    figure = image.gcf() if hasattr(image, "gcf") else image
    save: "Callable[..., Any]" = getattr(figure, "savefig", None) or getattr(figure, "save", None) or _no_image
    save(out, format="jpeg" if kind == "jpg" else kind)
    return out.getvalue()


def _no_image(*_arguments: "Any", **_options: "Any") -> None:
    raise Error("wandb.Image takes a file, a PIL image, a matplotlib figure, an array or a tensor")


def _png(array: "Any") -> bytes:
    """An array of 2 or 3 dimensions as PNG, values scaled as W&B scales them."""
    is_tensor = hasattr(array, "detach")
    pixels = array_of(array)
    if is_tensor and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim > 2 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise ValueError(f"wandb.Image: an image of shape {tuple(pixels.shape)}; (height, width), with 1, 3 or 4 channels, is taken")
    if pixels.size and pixels.min() < 0:
        spread = pixels.max() - pixels.min()
        pixels = (pixels - pixels.min()) / (spread or 1)
    if pixels.size and pixels.max() <= 1:
        pixels = pixels * 255
    pixels = pixels.clip(0, 255).astype("uint8")
    height, width = pixels.shape[:2]
    kind = {2: 0, 3: 2, 4: 6}[2 if pixels.ndim == 2 else pixels.shape[-1]]
    rows = b"".join(b"\0" + pixels[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunks([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def _chunks(chunks: "Iterable[tuple[bytes, bytes]]") -> bytes:
    return b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
