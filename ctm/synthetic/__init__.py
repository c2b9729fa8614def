"Synthetic data sets in the official layouts of real ones."

_NAMES = {"make": "make_synthetic", "set_name": "set_name"}


def __getattr__(name: str):
    "`make` or `set_name`, from `ctm.synthetic.sets`."
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("ctm.synthetic.sets"), _NAMES[name])
