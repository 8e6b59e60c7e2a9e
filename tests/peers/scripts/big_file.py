"""A file of some size, logged and read back: `big_file.py FOLDER BYTES`."""

import hashlib
import sys
from pathlib import Path

import mlflow

folder, size = Path(sys.argv[1]), int(sys.argv[2])
file = folder / "big.bin"
block = bytes(range(256)) * 4096
with file.open("wb") as out:
    for number in range(-(-size // len(block))):
        out.write(number.to_bytes(8, "big") + block[8 : min(len(block), size - number * len(block))])
assert file.stat().st_size == size, file.stat()


def digest(path):
    with path.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()


sent = digest(file)
mlflow.set_experiment("big files")
with mlflow.start_run() as run:
    mlflow.log_artifact(str(file))
file.unlink()
(listed,) = mlflow.MlflowClient().list_artifacts(run.info.run_id)
assert (listed.path, listed.file_size) == ("big.bin", size), listed
back = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="big.bin", dst_path=str(folder / "back")))
assert digest(back) == sent
back.unlink()
print("done")
