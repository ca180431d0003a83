"""deproj trains, measures and uses deprojectors: networks that turn one CLIP embedding back into the 77 hidden states
from which Stable Diffusion 1.x draws.

    import deproj

    pipe = deproj.DeprojectorPipeline.from_pretrained("best")  # a shipped model, a run's folder, or a hub id
    pipe("cat, maid").images[0].save("cat-maid.png")           # the sum of two prompts' embeddings
    pipe(deproj.between("cat", "1girl", 0.3)).images[0]        # 70 % of one, 30 % of the other
    deproj.load("best")                                        # the model alone, a torch module

What stands here: `DeprojectorPipeline`, `load`, `Deprojector`, `TextEncoder`; expressions, which are the arithmetic of
prompts: `parse`, `text`, `picture`, `vector`, `mean`, `between`, `Expression`; `open_picture`, which reads a file; `RunFolder`,
a run's files; `UserError`, which all mistakes of a user raise. Each is imported when it is first used.

On the command line, ``python -m deproj`` lists the commands: train, generate, evaluate, report and more.
"""

from importlib import import_module as _import_module

__version__ = "0.2.0"

#: Where what users need stands, by name; ``__init__.pyi`` tells type checkers the same.
#: There is no `__all__`: `help` would print all of torch's methods with it.
_MODULES = {
    "Deprojector": "deproj.model",
    "DeprojectorPipeline": "deproj.pipeline",
    "Expression": "deproj.expression",
    "RunFolder": "deproj.runs.folder",
    "TextEncoder": "deproj.encoder",
    "UserError": "deproj.process.errors",
    "between": "deproj.expression",
    "load": "deproj.model",
    "mean": "deproj.expression",
    "open_picture": "deproj.clip.images",
    "parse": "deproj.expression",
    "picture": "deproj.expression",
    "text": "deproj.expression",
    "vector": "deproj.expression",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(_import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*_MODULES, *(name for name in globals() if not name.startswith("_") or name.startswith("__"))})
