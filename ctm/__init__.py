__version__ = "0.1.0"


def __getattr__(name: str):
    "`ctm.explore`, imported when it is first asked for."
    if name == "explore":
        from ctm.live import explore

        return explore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
