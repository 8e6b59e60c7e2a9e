"""Files that a run leaves: artifacts, saved files, and whatever lies in the run's own folder."""

import json
import os

import wandb

run = wandb.init(job_type="train")
os.makedirs("checkpoints/last", exist_ok=True)
for name in ("checkpoints/first.bin", "checkpoints/last/second.bin"):
    with open(name, "wb") as file:
        file.write(bytes(range(wandb.config.size)))

model = wandb.Artifact("net", type="model", description="a small one", metadata={"size": wandb.config.size})
model.add_file("checkpoints/first.bin", name="weights.bin")
model.add_dir("checkpoints", name="all")
with model.new_file("labels.json") as file:
    json.dump(["cat", "dog"], file)
model.add(wandb.Table(columns=["x"], data=[[1]]), "eval")
run.log_artifact(model, aliases=["best", "latest"]).wait()
used = run.use_artifact("net:latest")
assert sorted(os.path.basename(path) for path in used.files())[:2] == ["eval.table.json", "first.bin"]

wandb.log_artifact("checkpoints", name="raw", type="checkpoints")
run.log_model("checkpoints/first.bin", name="linked-model")

wandb.save("checkpoints/*.bin")
wandb.save("data/*.csv", policy="now")
with open(os.path.join(wandb.run.dir, "notes.txt"), "w", encoding="utf-8") as file:
    file.write("found at the end\n")
with open("checkpoints/first.bin", "ab") as file:
    file.write(b"more")
wandb.log({"loss": wandb.config.size})
