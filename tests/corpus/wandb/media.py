"""Images from files and in memory, tables, histograms, plots: none of it needs more than the standard library."""

import struct
import zlib

import wandb


def png(grey):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes([0, grey]))) + chunk(b"IEND", b"")


class Picture:
    """What PIL's images are to whoever saves them."""

    def getbands(self):
        return ("L",)

    def save(self, file, **_options):
        file.write(png(200))


run = wandb.init()
with open("pixel.png", "wb") as file:
    file.write(png(100))
image = wandb.Image("pixel.png", caption=f"size {wandb.config.size}")
table = wandb.Table(columns=["id", "guess", "picture"])
for number in range(wandb.config.size):
    table.add_data(number, "seven", wandb.Image("pixel.png"))
curve = wandb.plot.line(wandb.Table(data=[[x, x * x] for x in range(4)], columns=["x", "y"]), "x", "y", title="squares")
wandb.log(
    {
        "image": image,
        "grey": wandb.Image(Picture()),
        "examples": [wandb.Image("pixel.png"), wandb.Image("pixel.png")],
        "table": table,
        "weights": wandb.Histogram([0.1, 0.2, 0.2, 0.9], num_bins=8),
        "counted": wandb.Histogram(np_histogram=([3, 1], [0.0, 0.5, 1.0])),
        "page": wandb.Html("<b>done</b>"),
        "curve": curve,
        "roc": wandb.plot.roc_curve([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], labels=["cat", "dog"]),
        "loss": 1 / wandb.config.size,
    }
)
run.finish()
