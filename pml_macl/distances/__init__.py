"""Similarities with a temperature per pair, and schedules of the temperature."""

from pml_macl.distances.constant_temperature import ConstantTemperature
from pml_macl.distances.cosine_temperature import CosineTemperature
from pml_macl.distances.learnable_temperature import LearnableTemperature
from pml_macl.distances.linear_temperature import LinearTemperature
from pml_macl.distances.scheduled_temperature import ScheduledTemperature
from pml_macl.distances.temperature_schedule import TemperatureSchedule
from pml_macl.distances.temperature_scheduled_similarity import TemperatureScheduledSimilarity

__all__ = [
    "ConstantTemperature",
    "CosineTemperature",
    "LearnableTemperature",
    "LinearTemperature",
    "ScheduledTemperature",
    "TemperatureSchedule",
    "TemperatureScheduledSimilarity",
]
