"""Models that answer at once, and a server around them: what the tests of serving share."""

import io
import json

import numpy as np
from PIL import Image

from outdo.data.images import RefusedImage, decode
from outdo.errors import DataError
from outdo.serving.app import Service, make_app
from outdo.serving.batcher import Batcher
from outdo.serving.models import Models
from outdo.serving.telemetry import Log


class Brightness:
    """An image is as probably `light` as it is bright."""

    kind = "image"
    classes = ("dark", "light")

    def __init__(self, name="lights", version="1", threshold=0.7, report=None):
        self.name, self.version, self.threshold, self.report = name, version, threshold, report
        self.batches = []

    def decode(self, data):
        try:
            return decode(data, (16, 16))
        except RefusedImage as reason:
            raise DataError(f"the image cannot be read: {reason}") from None

    def probabilities(self, items):
        self.batches.append(len(items))
        light = np.array([item.mean() / 255 for item in items])
        return np.stack([1 - light, light], 1)


class Length:
    """A text is as probably `long` as it has characters, up to 20."""

    kind = "text"
    classes = ("short", "long", "长")
    report = None

    def __init__(self, name="lengths", version="1", threshold=None):
        self.name, self.version, self.threshold = name, version, threshold

    def decode(self, data):
        return np.array([min(len(data), 20)])

    def probabilities(self, items):
        long = np.array([item[0] / 20 for item in items])
        return np.stack([1 - long, long, 0 * long], 1)


def picture(brightness=200, size=(24, 16), format="PNG", **options):
    file = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).save(file, format, **options)
    return file.getvalue()


def service(*models, challenger=None, share=0.0, shadow=False, shadow_log=None, limits=None, log=None, **batching):
    """A service of models that are there already."""
    every = {str(i): model for i, model in enumerate(models)} | {"rival": challenger}
    opened = Models([*every][:-1], challenger and "rival", share, shadow, load=every.__getitem__)
    more = {} if limits is None else {"limits": limits}
    return Service(opened, Batcher(**batching), log=Log(log or io.StringIO()), shadow_log=shadow_log, **more)


def app(*models, keys=None, rate=None, hosts=None, **options):
    return make_app(service(*models, **options), keys=keys, rate=rate, hosts=hosts)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]
