"""Fuzz one target until libFuzzer has enough: `run TARGET [libFuzzer's arguments]`.

Only what is imported inside the block below is instrumented, so that it guides the fuzzer.
"""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["superlink_trio"]):
    from fuzzing import handlers, splicing

TARGETS = {"splicing": splicing.check, "handlers": handlers.check}


def main(name: str, *arguments: str) -> None:
    # Rubbish is warned of, and there is nothing but rubbish.
    logging.getLogger("superlink_trio").setLevel(logging.CRITICAL)
    atheris.Setup([name, *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
