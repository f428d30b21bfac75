"""The image decoder under atheris: whatever the bytes, a picture of the size that was asked for, or RefusedImage.

    pip install atheris
    python bench/fuzz_decoder.py photos/ -max_total_time=150

The rest of the line is libFuzzer's. It ends with a traceback, and the bytes in a file, where the decoder does
anything else.
"""

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["PIL", "outdo.data.images"]):
    from outdo.data import images


def one(data: bytes) -> None:
    try:
        found = images.decode(data, (32, 32), "crop")
    except images.RefusedImage:
        return
    assert found.shape == (32, 32, 3)
    assert found.dtype == "uint8"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
