"""The same examples in every run, and few enough of them for every run."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "bounded",
    derandomize=True,
    max_examples=8,
    deadline=None,  # a machine may be busy
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bounded")
