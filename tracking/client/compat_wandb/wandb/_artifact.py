"""`wandb.Artifact`: files under a name, kept below that name among the run's artifacts."""

import atexit
import json
import os
import posixpath
import shutil
import tempfile

from ._plain import as_path, json_safe, plain
from .data_types import Media
from .errors import CommError, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Optional

FACTS_FILE = "wandb-artifact.json"


class Artifact:
    """Collects files; logging it uploads them. There are no versions here: the same name logged again takes the files' places."""

    def __init__(self, name: str, type: str, description: "Optional[str]" = None, metadata: "Optional[dict[str, Any]]" = None, **_options: "Any") -> None:
        self.name = name
        self.type = type
        self.description = description
        self.metadata: "dict[str, Any]" = dict(metadata or {})
        self.aliases: "list[str]" = []
        self.version = "v0"
        self._staging = tempfile.mkdtemp(prefix="artifact-")
        atexit.register(shutil.rmtree, self._staging, True)
        self._references: "dict[str, str]" = {}

    def add_file(self, local_path: "Any", name: "Optional[str]" = None, **_options: "Any") -> str:
        """Take a copy of a file as it is now."""
        path = os.fspath(local_path)
        if not os.path.isfile(path):
            raise ValueError(f"Path is not a file: {path!r}")
        return self._take(path, name or os.path.basename(path))

    def add_dir(self, local_path: "Any", name: "Optional[str]" = None, **_options: "Any") -> None:
        """Take a copy of what a folder holds."""
        folder = os.fspath(local_path)
        if not os.path.isdir(folder):
            raise ValueError(f"Path is not a directory: {folder!r}")
        for parent, _, names in os.walk(folder):
            for one in names:
                path = os.path.join(parent, one)
                self._take(path, posixpath.join(name or "", os.path.relpath(path, folder).replace(os.sep, "/")))

    def add(self, obj: Media, name: str, **_options: "Any") -> str:
        """Take a table, an image or other media."""
        path, _ = obj._write(tempfile.mkdtemp(dir=self._staging, prefix=".media-"), name, 0)
        suffix = obj._suffix
        target = self._take(path, name if name.endswith(suffix) else name + suffix)
        os.remove(path)
        return target

    def add_reference(self, uri: "Any", name: "Optional[str]" = None, **_options: "Any") -> None:
        """Take note of where something lies; it is not fetched."""
        self._references[name or posixpath.basename(str(uri)) or str(uri)] = str(uri)

    def new_file(self, name: str, mode: str = "w", encoding: "Optional[str]" = None) -> "IO[Any]":
        """A file to write into; close it before the artifact is logged."""
        path = self._path(name)
        return open(path, mode, encoding=encoding)

    def remove(self, item: "Any") -> None:
        """Leave a file out again."""
        os.remove(self._path(str(item)))

    def wait(self, timeout: "Optional[int]" = None) -> "Artifact":
        """Nothing to wait for."""
        return self

    def save(self, *_arguments: "Any", **_options: "Any") -> None:
        """Only a run can log it here."""
        say("Artifact.save() alone does nothing here: use run.log_artifact(artifact)")

    def link(self, target_path: str, aliases: "Any" = None) -> None:
        """Registering is the sweep file's business."""
        say(f"Artifact.link({target_path!r}) is not served: name the model under 'register:' in the sweep file")

    def download(self, root: "Optional[str]" = None, **_options: "Any") -> str:
        """A copy of the files: only of an artifact that this process has made."""
        if root is not None:
            shutil.copytree(self._staging, root, dirs_exist_ok=True)
        return root or self._staging

    def file(self, root: "Optional[str]" = None) -> str:
        """The one file."""
        paths = self.files(root)
        if len(paths) != 1:
            raise ValueError(f"artifact {self.name} has {len(paths)} files, not one")
        return paths[0]

    def files(self, root: "Optional[str]" = None) -> "list[str]":
        """Where its files lie."""
        folder = self.download(root)
        return sorted(os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if name != FACTS_FILE)

    def __getattr__(self, name: str) -> "Any":
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"wandb.Artifact.{name} is not served by this stand-in: a trial's artifacts have no versions of their own (docs: coming from W&B)")

    def _path(self, name: str) -> str:
        path = os.path.join(self._staging, *as_path(name).split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def _take(self, path: str, name: str) -> str:
        target = self._path(name)
        shutil.copyfile(path, target)
        return target

    def _finished(self, aliases: "Any") -> str:
        """Its folder, with the facts written beside the files."""
        self.aliases = [str(alias) for alias in aliases or ["latest"]]
        facts = {"name": self.name, "type": self.type, "description": self.description, "metadata": plain(self.metadata), "aliases": self.aliases}
        with open(os.path.join(self._staging, FACTS_FILE), "w", encoding="utf-8") as file:
            json.dump(json_safe(dict(facts, references=self._references) if self._references else facts), file, indent=1)
        for entry in os.listdir(self._staging):
            if entry.startswith(".media-"):
                shutil.rmtree(os.path.join(self._staging, entry))
        return self._staging


def made_elsewhere(name: str) -> CommError:
    """Why an artifact can't be had."""
    return CommError(
        f"artifact {name!r} was not logged by this trial, and a trial reads no other run's artifacts through this stand-in: "
        "put the files into the project folder, or fetch them with an mlflow client"
    )
