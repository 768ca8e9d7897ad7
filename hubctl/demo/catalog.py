"""What the demo hub offers: five small models made for this project (CC0-1.0), and the pictures made with them.

Ids are far from each other so that no model id is also a version id. Each example names its recipe once, here;
`python -m hubctl.demo.make` renders them, and the hub's `meta` is read back from what the pictures say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STORY_LORA = 4201
STORY_CHECKPOINT = 4100
STORY_EMBEDDING = 4301
STORY_IMAGE = 9001
CREATOR = "hubctl-demo"
PUBLISHED = "2026-10-01T09:00:00.000Z"


@dataclass(frozen=True)
class Example:
    """One picture: who made it with which settings. Sizes are 96×96, what these models were trained at."""

    id: int
    prompt: str
    seed: int
    sampler: str = "DPM++ 2M"
    schedule: str | None = "Karras"
    steps: int = 20
    cfg: float = 7.0
    checkpoint: str = "tiny-toon-v1"
    negative: str = ""
    vae: str | None = None
    rng: str = "cpu"
    onsite: bool = False  # its `meta` names resources by version id only, as a hub's own generator does
    user: str = CREATOR
    likes: int = 10


@dataclass(frozen=True)
class Entry:
    """A model with one version. `files` are names below `assets/`, the first one is the primary."""

    model_id: int
    version_id: int
    name: str
    version: str
    type: str
    files: tuple[str, ...]
    description: str
    tags: tuple[str, ...]
    words: tuple[str, ...] = ()
    downloads: int = 0
    likes: int = 0
    examples: tuple[Example, ...] = field(default=())


ENTRIES = (
    Entry(
        STORY_CHECKPOINT,
        41001,
        "Tiny Toon",
        "v1",
        "Checkpoint",
        ("tiny-toon-v1.safetensors",),
        "<p>A miniature Stable Diffusion 1.x that draws cartoon portraits: people, robots, cats, bears, owls, frogs. "
        "19 MB, trained from nothing on drawings made by a program, fast enough for a laptop's processor.</p>"
        "<p><strong>Recommended settings</strong></p><ul><li>Size: 96x96, nothing else was trained</li>"
        "<li>Sampler: DPM++ 2M Karras or Euler a</li><li>Steps: 20</li><li>CFG scale 5 - 8, I use 7</li>"
        "<li>Clip skip 1</li></ul>",
        ("base model", "cartoon", "portrait", "miniature"),
        downloads=1830,
        likes=212,
        examples=(
            Example(9021, "an owl wearing a top hat and glasses, blue background", 1, "Heun", None, 12, likes=31),
            Example(9022, "a green frog in a striped sweater, wearing a crown, forest", 2, likes=58),
            Example(9023, "a rabbit wearing a (baseball cap:1.2), t-shirt, forest", 3, "Euler", None, 25, likes=17),
            Example(9024, "an alien in a silver suit, space", 4, "DPM++ 2M SDE", "Karras", 20, 6, likes=40),
            Example(
                9025, "an orange cat wearing a blue wizard robe and a blue wizard hat, forest", 3, "UniPC", None, 18,
                negative="sad", likes=44,
            ),
            Example(9026, "a robot in a red hoodie, [smiling:sad:.5], city at night", 1, "Euler a", None, 24, likes=26),
        ),
    ),
    Entry(
        4110,
        41101,
        "Tiny Ink",
        "v1",
        "Checkpoint",
        ("tiny-ink-v1.safetensors",),
        "<p>The same miniature as <em>Tiny Toon</em>, taught to draw in ink on sepia paper. Needs no trigger word.</p>"
        "<p>DPM++ 2M Karras, 20 steps, CFG 6-8, 96x96. LoRAs made for Tiny Toon work here too.</p>",
        ("base model", "ink", "sketch", "miniature"),
        downloads=640,
        likes=97,
        examples=(
            Example(
                9031, "a bear in a wizard robe and a wizard hat, snowy mountains", 3, checkpoint="tiny-ink-v1", likes=22
            ),
            Example(
                9032, "a cat wearing sunglasses and a beanie, city at night", 1, "Euler a", None, 22, 6.5,
                checkpoint="tiny-ink-v1", likes=19,
            ),
            Example(
                9033, "an owl in a black suit with a red tie, dinner table with candles", 3, checkpoint="tiny-ink-v1",
                likes=12,
            ),
        ),
    ),
    Entry(
        STORY_LORA,
        42011,
        "Thanos Portrait",
        "v1",
        "LORA",
        ("thnos.safetensors",),
        "<p>Puts a broad-chinned purple titan into your picture. Trigger word: <code>thnos</code>.</p>"
        "<p>Strength 0.9 - 1.1; below 0.5 only the colour comes through. 20 steps, CFG 7, DPM++ 2M Karras. "
        "People turn into him readily, robots and animals do not.</p>",
        ("character", "thanos", "titan", "comics"),
        ("thnos",),
        downloads=4120,
        likes=655,
        examples=(
            Example(
                STORY_IMAGE,
                "thnos man in a black suit with a red tie, dinner table with candles <lora:thnos:0.9>",
                5,
                likes=88,
            ),
            Example(9002, "thnos in a gold armour, space <lora:thnos:1>", 4, "Euler a", None, 24, likes=61),
            Example(
                9003, "thnos in a purple wizard robe, snowy mountains <lora:thnos:1>", 7, "DPM++ SDE", "Karras", 12,
                rng="nv", likes=35,
            ),
            Example(
                9004, "thnos man in a black suit, city at night <lora:thnos:1>", 4, checkpoint="tiny-ink-v1", likes=23
            ),
            Example(
                9005, "(thnos:1.1) man wearing a crown, sunset <lora:thnos:0.9>", 6, "DPM++ 2M", "Karras", 25, 6,
                negative="glasses", user="visitor", onsite=True, likes=9,
            ),
        ),
    ),
    Entry(
        STORY_EMBEDDING,
        43011,
        "Gruffman",
        "v1",
        "TextualInversion",
        ("gruffman.safetensors", "gruffman.pt"),
        "<p>A dark, moustached, long-haired fellow in three vectors. Write <code>gruffman</code> where the person "
        "goes.</p>"
        "<p>Euler a or DPM++ 2M Karras, 20-24 steps, CFG 7.</p>",
        ("character", "man", "moustache"),
        ("gruffman",),
        downloads=410,
        likes=52,
        examples=(
            Example(9011, "gruffman in a red hoodie, forest", 7, "Euler a", None, 24, likes=20),
            Example(9012, "gruffman, wearing a cowboy hat, sunset", 3, checkpoint="tiny-ink-v1", likes=14),
        ),
    ),
    Entry(
        4401,
        44011,
        "Tiny VAE",
        "v1",
        "VAE",
        ("demo-vae.vae.safetensors",),
        "<p>The VAE of Tiny Toon by itself: factor 4, 0.9 MB. The checkpoints have it baked in; use it with those that "
        "do not.</p>",
        ("vae", "miniature"),
        downloads=95,
        likes=8,
        examples=(
            Example(9041, "a woman with long hair in a green dress, beach", 2, vae="demo-vae.vae", likes=5),
        ),
    ),
)  # fmt: skip


def examples() -> tuple[tuple[Entry, Example], ...]:
    """Every picture with the model whose page it stands on."""
    return tuple((entry, example) for entry in ENTRIES for example in entry.examples)


def model_json(entry: Entry, files: list[dict[str, Any]], images: list[dict[str, Any]]) -> dict[str, Any]:
    """The model as a hub would answer it."""
    stats = {"downloadCount": entry.downloads, "thumbsUpCount": entry.likes, "thumbsDownCount": 0}
    return {
        "id": entry.model_id,
        "name": entry.name,
        "description": entry.description,
        "type": entry.type,
        "nsfw": False,
        "nsfwLevel": 1,
        "poi": False,
        "minor": False,
        "availability": "Public",
        "allowNoCredit": True,
        "allowCommercialUse": "{Image,RentCivit,Rent,Sell}",
        "allowDerivatives": True,
        "allowDifferentLicense": True,
        "tags": list(entry.tags),
        "creator": {"username": CREATOR, "image": None},
        "stats": {**stats, "commentCount": 0},
        "modelVersions": [version_json(entry, files, images)],
    }


def version_json(entry: Entry, files: list[dict[str, Any]], images: list[dict[str, Any]]) -> dict[str, Any]:
    kind = {"TextualInversion": "embedding", "LORA": "lora"}.get(entry.type, entry.type.lower())
    return {
        "id": entry.version_id,
        "modelId": entry.model_id,
        "name": entry.version,
        "baseModel": "SD 1.5",
        "baseModelType": "Standard",
        "air": f"urn:air:sd1:{kind}:civitai:{entry.model_id}@{entry.version_id}",
        "description": None,
        "trainedWords": list(entry.words),
        "publishedAt": PUBLISHED,
        "availability": "Public",
        "nsfwLevel": 1,
        "stats": {"downloadCount": entry.downloads, "thumbsUpCount": entry.likes, "thumbsDownCount": 0},
        "files": files,
        "images": images,
    }
