"""One of the processes of a training, started by a launcher: python -m stkvlm_lib.vlm.train_process RUN_DIR.

Reads the parameters that step 03 of the run has recorded, and the questions drawn for it.
"""

import argparse
import sys
from pathlib import Path

from stkvlm_lib.config import ConfigError, FinetuneConfig
from stkvlm_lib.files import read_object
from stkvlm_lib.parameters import make_config
from stkvlm_lib.runs import set_seeds, set_up_hub, set_up_torch


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--qa", type=Path, help="folder of the question files; default: the run's own")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    options = parser.parse_args(arguments)
    config = recorded_config(options.run.absolute())
    set_up_hub(config.base_model)
    set_seeds(config.seed)
    set_up_torch()

    from stkvlm_lib.vlm.finetune import build_trainable
    from stkvlm_lib.vlm.launch import record_failure
    from stkvlm_lib.vlm.train_run import drawn_material, train_here  # only now: the hub's settings come first

    try:
        train_here(
            drawn_material(config, options.qa or config.run_path / "qa"), build_trainable(config), resume=options.resume
        )
    except Exception as error:
        record_failure(config.run_path, error)
        raise
    return 0


def recorded_config(run: Path) -> FinetuneConfig:
    """The parameters of step 03 in a run's config.json. Raises ConfigError where it has none."""
    path = run / "config.json"
    recorded = read_object(path, "begin notebook 03 with this RUN_DIR first").get("03")
    if recorded is None:
        raise ConfigError(f"{path}: step 03 was not begun; run notebook 03 with this RUN_DIR")
    return make_config(recorded | {"RUN_DIR": str(run)}, FinetuneConfig)


if __name__ == "__main__":
    sys.exit(main())
