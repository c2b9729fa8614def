"Class-token masking: pixel masks from image-level labels. The names of `_API` are imported when they are first used."

__version__ = "0.1.0"

_API = {  # name -> its module in ctm
    "BadFileError": "core",
    "ClassTokenLoss": "loss",
    "ClassTokenViT": "model",
    "Config": "train.config",
    "DatasetNotFoundError": "core",
    "ImageDataset": "data.dataset",
    "Masker": "predict.masker",
    "Result": "experiments.results",
    "SegmentationScores": "metrics",
    "explore": "explorer.app",
    "export_masks": "project.export",
    "fit": "train.fit",
    "load_config": "train.config",
    "load_dataset": "train.data",
    "load_masker": "project.saved",
    "load_model": "checkpoint",
    "load_reference_checkpoint": "reference",
    "load_results": "experiments.results",
    "make_synthetic": "synthetic.sets",
    "mask_file": "predict.raster",
    "mask_folder": "project.folder",
    "plan_folder": "project.folder",
    "prune_heads": "pruning",
    "pseudo_mask": "pseudomask",
    "run": "experiments.run",
    "save_model": "checkpoint",
    "sparsity": "pruning",
    "train_folder": "project.folder",
}
__all__ = ["__version__", *_API]


def __getattr__(name: str):
    "A name of the public interface, from the module that defines it."
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"{__name__}.{_API[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    "All names, for completion."
    return sorted({*globals(), *_API})
