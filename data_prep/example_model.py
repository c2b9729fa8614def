"""Model that the explorer opens first, from the demo preset's fit to a file of one megabyte in the package.

    python data_prep/example_model.py

The fit takes some minutes and is read where it was made before. Weights are stored as half-precision numbers.
"""

import json

import ctm
from ctm.core import write_whole
from ctm.experiments.run import run_of
from ctm.explorer.example import EXAMPLE_FILE, TRAINED


def main() -> None:
    "Fit, and the files of the model and of its heads' numbers."
    config = ctm.load_config(*TRAINED)
    result = ctm.run(config)
    model = ctm.load_model(run_of(config).model_file)
    ctm.save_model(model.half(), EXAMPLE_FILE)
    write_whole(EXAMPLE_FILE.with_suffix(".json"), json.dumps(dict(open_heads=result.extra["open_heads"])) + "\n")
    print(f"{EXAMPLE_FILE}: {EXAMPLE_FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
