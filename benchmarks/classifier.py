"""A multi-label classifier, which is what most users try before metric learning, and three ways to search with it."""

from torch import Tensor, nn

from pml_macl import LabelStatistics


class ClassifierLoss(nn.Module):
    """Binary cross-entropy over labels.

    Args:
        power: a positive of a label that n of N training images carry weighs ((N - n) / n) ** power; 0 weighs all
            images alike.
        statistics: label counts of the training split.
    """

    def __init__(self, power: float, statistics: LabelStatistics) -> None:
        super().__init__()
        self.power = power
        counts = statistics.counts.clamp(min=1)
        weights = ((statistics.num_samples - counts).clamp(min=1) / counts) ** power
        self.cross_entropy = nn.BCEWithLogitsLoss(pos_weight=weights)

    def forward(self, scores: Tensor, labels: Tensor, indices_tuple: None = None) -> Tensor:
        return self.cross_entropy(scores, labels.to(scores.dtype))


class Scale(nn.Module):
    """Multiply each column by its weight."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, columns: Tensor) -> Tensor:
        return columns * self.weights


def features(head: nn.Sequential, statistics: LabelStatistics) -> nn.Module:
    """The hidden layer before the scores, after its activation."""
    return head[:2]


def probabilities(head: nn.Sequential, statistics: LabelStatistics) -> nn.Module:
    """One probability per label."""
    return nn.Sequential(head, nn.Sigmoid())


def weighted_probabilities(head: nn.Sequential, statistics: LabelStatistics) -> nn.Module:
    """The probabilities divided by the square roots of the label counts, so that rare labels count more."""
    return nn.Sequential(head, nn.Sigmoid(), Scale(statistics.counts.clamp(min=1) ** -0.5))
