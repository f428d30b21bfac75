"""Property tests here compute; how long that takes on a busy machine says nothing about them."""

from hypothesis import settings

settings.register_profile("evaluation", deadline=None)
settings.load_profile("evaluation")
