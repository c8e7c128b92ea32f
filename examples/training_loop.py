"""What train.py trains, in PML's trainer, and the hooks that evaluate and record each epoch."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from data import Split
from package_losses import make_loss, make_miner
from process_group import copy_buffers_of_first, from_first, joint_mean, num_processes, rank, split_batches
from pytorch_metric_learning.trainers import MetricLossOnly, TrainWithClassifier
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper
from retrieval_metrics import PRIMARY_METRIC, make_calculator
from run_settings import Settings
from torch import Tensor, nn

from pml_macl import LabelStatistics
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

State = Mapping[str, Mapping[str, Any]]
PROXY_LR_FACTOR = 10  # proxies start at random, so they learn faster than the head


class MultiHotCrossEntropy(nn.BCEWithLogitsLoss):
    """Binary cross-entropy of (N, C) logits and (N, C) multi-hot labels of any type, over all processes."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return joint_mean(super().forward(logits, labels.to(logits.dtype)), len(logits))


def make_trained_models(settings: Settings, model: nn.Sequential, num_classes: int) -> dict[str, nn.Module]:
    """The parts that are trained, under PML's names; a frozen trunk is left out, since the splits hold its features."""
    models = {"trunk": nn.Identity() if settings.freeze_trunk else model.trunk, "embedder": model.embedder}
    if settings.classifier_weight > 0:
        models["classifier"] = nn.Linear(settings.embedding_size, num_classes)
    return {name: part.to(settings.device) for name, part in models.items()}


def make_state(settings: Settings, models: dict[str, nn.Module], statistics: LabelStatistics) -> State:
    """Everything that training changes, under the names of PML's trainers."""
    loss = make_loss(settings.loss, settings.temperature, statistics, settings.embedding_size).to(settings.device)
    losses: dict[str, nn.Module] = {"metric_loss": loss}
    if "classifier" in models:
        losses["classifier_loss"] = MultiHotCrossEntropy()
    optimizers = {
        f"{name}_optimizer": torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        for name, model in models.items()
        if not isinstance(model, nn.Identity)
    }
    if proxies := list(loss.parameters()):
        lr = PROXY_LR_FACTOR * settings.lr
        optimizers["metric_loss_optimizer"] = torch.optim.AdamW(proxies, lr=lr, weight_decay=settings.weight_decay)
    batches = int(statistics.num_samples) // settings.batch_size  # per epoch; PML drops the last, smaller batch
    factor = partial(
        learning_rate_factor,
        warmup=settings.warmup_epochs * batches,
        total=settings.epochs * batches if settings.schedule == "cosine" else None,
    )
    schedulers = {
        name.replace("_optimizer", "_scheduler_by_iteration"): torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        for name, optimizer in optimizers.items()
    }
    return {
        "models": models,
        "optimizers": optimizers,
        "lr_schedulers": schedulers,
        "loss_funcs": losses,
        "mining_funcs": {"tuple_miner": make_miner(settings.hard_negatives)},
    }


def learning_rate_factor(step: int, warmup: int, total: int | None) -> float:
    """The learning rate after ``step`` batches, as a share of ``--lr``.

    It rises linearly over ``warmup`` batches. Then it is constant or, with ``total``, follows half a cosine, which
    reaches 0 after ``total`` batches.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 1.0 if total is None else (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def make_hooks(settings: Settings) -> HookContainer:
    """PML's hooks, which write csv, sqlite and optionally tensorboard records."""
    tensorboard = str(settings.output / "tensorboard") if settings.tensorboard else None
    records, _, _ = get_record_keeper(str(settings.output / "records"), tensorboard)
    # PML would write one file per object. train.py saves all objects in one file, which is replaced in one step.
    return HookContainer(
        records, primary_metric=PRIMARY_METRIC, validation_split_name="val", save_models=False, log_freq=1
    )


def make_tester(
    settings: Settings, statistics: LabelStatistics, hooks: HookContainer | None
) -> MultiLabelEmbeddingSpaceTester:
    """A tester whose work the processes share, and whose metrics the hooks record."""
    tester = MultiLabelEmbeddingSpaceTester(
        batch_size=settings.batch_size,
        dataloader_num_workers=settings.num_workers,
        data_device=settings.device,
        end_of_testing_hook=None if hooks is None else hooks.end_of_testing_hook,
        accuracy_calculator=make_calculator(statistics, distributed=True),
    )
    tester.reference_split_names["val"] = ["val"]  # PML sets this in a test, which a resume of a finished run lacks
    return tester


def make_trainer(settings: Settings, split: Split, state: State, **hooks: Any) -> MetricLossOnly:
    """PML's trainer, with a classifier and with mixed precision if the settings ask for them."""
    options: dict[str, Any] = {}
    if "classifier" in state["models"]:
        options["loss_weights"] = {"metric_loss": 1, "classifier_loss": settings.classifier_weight}
    trainer = (TrainWithClassifier if options else MetricLossOnly)(
        **state,
        batch_size=settings.batch_size,
        dataset=split.dataset,
        data_device=settings.device,
        label_hierarchy_level="all",
        dataloader_num_workers=settings.num_workers,
        **options,
        **hooks,
    )
    if num_processes() > 1:
        split_batches(trainer, settings.hard_negatives is not None, settings.sync_batch_norm)
    if settings.amp:
        trainer.compute_embeddings = in_bfloat16(trainer.compute_embeddings, settings.device)
    return trainer


def in_bfloat16(compute: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Run ``compute`` under autocast. bfloat16 has the range of float32, so the gradients need no scaling."""

    def compute_embeddings(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return compute(images).float()

    return compute_embeddings


def train(
    settings: Settings,
    splits: dict[str, Split],
    state: State,
    first_epoch: int,
    tester: MultiLabelEmbeddingSpaceTester,
    hooks: HookContainer | None,
    save: Callable[[int, bool], None],
) -> None:
    """Train to the last epoch. After each epoch evaluate and record it, and call ``save(epoch, is_best)``.

    Of several processes, only the first one has ``hooks``, records and saves.
    """

    def end_of_epoch(trainer: MetricLossOnly) -> None:
        models = state["models"]
        copy_buffers_of_first(models.values())
        tester.test({"val": splits["val"].dataset}, trainer.epoch, models["trunk"], models["embedder"])
        if hooks is None:
            return
        hooks.record_keeper.save_records()
        best_epoch, best = hooks.get_best_epoch_and_accuracy(tester, "val")
        save(trainer.epoch, best_epoch == trainer.epoch)
        value = tester.all_accuracies["val"][PRIMARY_METRIC]
        print(
            f"epoch {trainer.epoch}/{settings.epochs}: val label mAP {value:.2%}, best {best:.2%} in epoch {best_epoch}"
        )

    events: dict[str, Any] = {"end_of_epoch_hook": end_of_epoch}
    if hooks is not None:
        events["end_of_iteration_hook"] = hooks.end_of_iteration_hook
    trainer = make_trainer(settings, splits["train"], state, **events)
    for epoch in range(first_epoch, settings.epochs + 1):
        best_epoch = from_first(None if hooks is None else hooks.get_best_epoch_and_accuracy(tester, "val")[0])
        if None not in (best_epoch, settings.patience) and epoch - 1 - best_epoch >= settings.patience:
            print(f"stopped: no epoch after epoch {best_epoch} is better, and --patience is {settings.patience}")
            break
        # Each epoch has its own seed, so a resumed run draws the same random numbers as an uninterrupted one. So has
        # each process; otherwise all of them would change their images in the same ways.
        torch.manual_seed(1000 * settings.seed + epoch + (rank() << 32))
        trainer.train(start_epoch=epoch, num_epochs=epoch)
    trainer.dataloader_iter = None  # ends its workers now; the garbage collector would wait five seconds for them
