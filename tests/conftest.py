"""What holds for every test: properties have no deadline of their own, a busy machine is not a counterexample."""

from hypothesis import settings

settings.register_profile("tulle", deadline=None)
settings.load_profile("tulle")
