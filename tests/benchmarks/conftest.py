import numpy as np
import pytest
from protocols import FEATURES

from pml_macl.datasets import SyntheticScenes


@pytest.fixture
def data(tmp_path):
    """Eighty scenes with random features that depend on the labels."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    labels = SyntheticScenes(80, seed=4).labels.numpy()
    rng = np.random.default_rng(0)
    features = labels @ rng.normal(size=(12, 32)) + rng.normal(size=(80, 32))
    np.savez(folder / FEATURES, X=features.astype(np.float16))
    lines = ["id,scene,aitlas_split," + ",".join(f"label{k}" for k in range(12))]
    for row, cells in enumerate(labels):
        lines.append(f"{row},x,{('train', 'train', 'val', 'test')[row % 4]}," + ",".join(str(int(x)) for x in cells))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
