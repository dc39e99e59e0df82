"""The files beside the models that a server is started with."""

from pathlib import Path
from typing import Final

from kerasseg.serving.export.versions import versions_of
from kerasseg.write_aside import write_aside

MODELS_CONFIG: Final = "models.config"
_TEMPLATES: Final = Path(__file__).with_name("templates")


def write_deployment(folder: Path) -> list[Path]:
    """Write into the folder of the models what TensorFlow Serving is started with.

    `models.config` names every model that has a version and is written anew each time; of the
    others, which are the user's to change, only those that are missing. Returns what was written.
    """
    written = []
    path = folder / MODELS_CONFIG
    with write_aside(path, "--output") as temporary:
        temporary.write_text(models_config(folder), encoding="utf-8")
    written.append(path)
    for template in sorted(_TEMPLATES.iterdir()):
        path = folder / template.name
        if template.is_file() and not path.exists():
            with write_aside(path, "--output") as temporary:
                temporary.write_bytes(template.read_bytes())
            written.append(path)
    return written


def models_config(folder: Path) -> str:
    """TensorFlow Serving's `ModelServerConfig` of all models in `folder`, which it sees as
    /models, in the text format of protocol buffers."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and versions_of(p))
    lines = [
        "# Written by kerasseg export: changes are lost with the next one.",
        "model_config_list {",
    ]
    for name in names:
        lines += [
            "  config {",
            f'    name: "{name}"',
            f'    base_path: "/models/{name}"',
            '    model_platform: "tensorflow"',
            "  }",
        ]
    return "\n".join([*lines, "}", ""])
