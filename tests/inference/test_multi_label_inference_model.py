"""Searches against a brute-force loop, predicted labels against scikit-learn, PML's methods against PML."""

import json
import re

import faiss
import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.inference import CustomKNN, FaissKNN, InferenceModel
from sklearn.neighbors import KNeighborsClassifier

from pml_macl.datasets import SyntheticScenes
from pml_macl.inference import MultiLabelInferenceModel, SearchResults
from pml_macl.inference import labelled_index as module

CLASSES = ["river", "ship", "trees", "dock"]
NAMES = [f"{number}.png" for number in range(60)]


@pytest.fixture
def archive():
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(60, 8, generator=generator), dim=1)
    return images, torch.rand(60, 4, generator=generator) < torch.tensor([0.6, 0.3, 0.4, 0.1])


@pytest.fixture
def model(archive):
    images, labels = archive
    model = MultiLabelInferenceModel(torch.nn.Identity(), classes=CLASSES)
    model.index(images, labels, NAMES)
    return model


def nearest(images, labels, query, k, having=(), lacking=(), own=None):
    """Names and squared distances of the k nearest images that pass the filters, by a loop in float64."""
    found = []
    for row, image in enumerate(images.double()):
        names = {name for name, has in zip(CLASSES, labels[row], strict=True) if has}
        if names >= set(having) and not names & set(lacking) and NAMES[row] != own:
            found.append((float(((image - query.double()) ** 2).sum()), NAMES[row]))
    return [name for _, name in sorted(found)[:k]], [distance for distance, _ in sorted(found)[:k]]


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize(
    ("having", "lacking"),
    [((), ()), (("ship",), ()), ((), ("river",)), (("river", "trees"), ("dock",)), (("dock",), ("dock",))],
)
@pytest.mark.parametrize("exclude", [False, True])
def test_search_equals_a_loop(archive, model, k, having, lacking, exclude):
    images, labels = archive
    ids = NAMES[:9] if exclude else None
    results = model.search(images[:9], k, having, lacking, query_ids=ids)
    assert len(results) == 9
    for row, found in enumerate(results):
        names, distances = nearest(images, labels, images[row], k, having, lacking, NAMES[row] if exclude else None)
        assert found.ids == names
        assert len(found) == len(names)
        assert found.distances.tolist() == pytest.approx(distances, abs=1e-5)
        assert torch.equal(found.labels, labels[[NAMES.index(name) for name in names]])


def test_filters_are_exact_where_matches_are_rare_and_far():
    """One in a thousand images passes, and it is not among the nearest of any query."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5000, 4, generator=generator)
    images[:, 0] = images[:, 0].abs()
    labels = torch.zeros(5000, 2, dtype=torch.bool)
    labels[::1000, 1] = True
    images[::1000] *= -1
    model = MultiLabelInferenceModel(torch.nn.Identity(), classes=["common", "rare"])
    model.index(images, labels)
    for found in model.search(images[1:20], k=5, having="rare"):
        assert sorted(found.ids) == [0, 1000, 2000, 3000, 4000]


def test_columns_can_be_numbers(archive, model):
    images, labels = archive
    by_name, by_number = model.search(images[:3], 5, ["ship"], ["dock"]), model.search(images[:3], 5, [1], [3])
    assert [found.ids for found in by_name] == [found.ids for found in by_number]
    without_names = MultiLabelInferenceModel(torch.nn.Identity())
    without_names.index(images, labels, NAMES)
    assert [found.ids for found in without_names.search(images[:3], 5, [1], [3])] == [found.ids for found in by_name]


@pytest.mark.parametrize(
    "init",
    [
        faiss.IndexFlatL2,
        faiss.IndexFlatIP,
        lambda d: faiss.index_factory(d, "IVF4,Flat"),
        lambda d: faiss.index_factory(d, "PCA8,IVF4,Flat"),
        lambda d: faiss.IndexIDMap2(faiss.IndexFlatL2(d)),
    ],
    ids=["L2", "IP", "IVF", "IVF after PCA", "IDMap"],
)
def test_kinds_of_index(archive, init):
    images, labels = archive
    knn_func = FaissKNN(reset_before=False, reset_after=False, index_init_fn=init)
    model = MultiLabelInferenceModel(torch.nn.Identity(), classes=CLASSES, knn_func=knn_func)
    model.index(images, labels, NAMES)
    if (ivf := faiss.try_extract_index_ivf(knn_func.index)) is not None:
        ivf.nprobe = 4  # all lists, which must also hold for filtered searches
    model.remove(NAMES[3:5])
    keep = [row for row in range(60) if row not in (3, 4)]
    for query in images[:5]:
        found = model.search(query[None], 6, ["river"])[0]
        names = [name for name in nearest(images, labels, query, 60, ["river"])[0] if name not in NAMES[3:5]]
        assert found.ids == names[:6]
    assert model.ids == [NAMES[row] for row in keep]
    probabilities = model.predict_labels(images[:5], 3)
    default = MultiLabelInferenceModel(torch.nn.Identity())
    default.index(images[keep], labels[keep])
    assert torch.allclose(probabilities, default.predict_labels(images[:5], 3), atol=1e-2)


def test_a_graph_index_filters_but_cannot_remove(archive):
    images, labels = archive
    knn_func = FaissKNN(reset_before=False, reset_after=False, index_init_fn=lambda d: faiss.IndexHNSWFlat(d, 16))
    model = MultiLabelInferenceModel(torch.nn.Identity(), classes=CLASSES, knn_func=knn_func)
    model.index(images, labels, NAMES)
    assert model.search(images[:1], 3, ["trees"])[0].ids == nearest(images, labels, images[0], 3, ["trees"])[0]
    with pytest.raises(ValueError, match="cannot remove vectors from IndexHNSWFlat; use a flat or an IVF index"):
        model.remove(NAMES[:1])
    assert len(model) == 60


@pytest.mark.parametrize("k", [1, 5, 60])
def test_predicted_labels_equal_those_of_scikit_learn(archive, model, k):
    images, labels = archive
    queries = torch.nn.functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    queries = torch.cat([queries, images[:3]])  # three at distance 0 of an image
    oracle = KNeighborsClassifier(k, weights="distance", algorithm="brute").fit(images.double(), labels.numpy())
    expected = np.stack([column[:, 1] for column in oracle.predict_proba(queries.double())], axis=1)
    assert np.abs(model.predict_labels(queries, k).numpy()[:20] - expected[:20]).max() < 1e-5
    # Float32 leaves a distance of up to 1e-3 where float64 has 0.
    assert np.abs(model.predict_labels(queries, k).numpy()[20:] - expected[20:]).max() < 0.05


def test_an_image_does_not_vote_for_itself(archive, model):
    images, labels = archive
    rest = MultiLabelInferenceModel(torch.nn.Identity())
    rest.index(images[1:], labels[1:])
    expected = rest.predict_labels(images[:1], 5)
    assert torch.allclose(model.predict_labels(images[:1], 5, query_ids=NAMES[:1]), expected)
    for k in (59, 60, 100):  # all other images vote
        assert torch.allclose(
            model.predict_labels(images[:1], k, query_ids=NAMES[:1]), rest.predict_labels(images[:1], 59)
        )


def test_images_at_distance_0_vote_alone():
    model = MultiLabelInferenceModel(torch.nn.Identity())
    model.index(torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]]), torch.tensor([[1, 0], [1, 1], [0, 1]]))
    assert model.predict_labels(torch.tensor([[1.0, 0.0]]), k=3).tolist() == [[1.0, 0.5]]


def test_pml_methods_find_what_pml_finds(archive, model):
    images, _ = archive
    theirs = InferenceModel(torch.nn.Identity(), data_device="cpu")
    theirs.train_knn(images)
    distances, indices = theirs.get_nearest_neighbors(images[:4], 5)
    found_distances, found_indices = model.get_nearest_neighbors(images[:4], 5)
    assert torch.equal(indices, found_indices)
    assert torch.allclose(distances, found_distances)
    ours = MultiLabelInferenceModel(torch.nn.Identity(), data_device="cpu")
    ours.train_knn(images[:30])
    ours.add_to_knn(torch.utils.data.TensorDataset(images[30:], torch.arange(30)))  # PML's data sets have pairs
    assert torch.equal(ours.get_nearest_neighbors(images[:4], 5)[1], indices)
    assert ours.search(images[:1], 5)[0].ids == indices[0].tolist()
    assert ours.search(images[:1], 5)[0].labels is None
    ours.train_knn(images[:10])
    assert len(ours) == 10


def test_embeddings_are_those_of_the_networks():
    scenes = SyntheticScenes(24, seed=3)
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 16), torch.nn.Dropout(0.5))
    model = MultiLabelInferenceModel(trunk, torch.nn.Linear(16, 4), classes=scenes.classes)
    ids = model.index(scenes, batch_size=7)  # labels come from the data set
    assert ids == list(range(24))
    assert torch.equal(model.labels, scenes.labels)
    images = torch.stack([image for image, _ in scenes])
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(model.embedder(trunk.eval()(images)), dim=1)
    again = MultiLabelInferenceModel(torch.nn.Identity())
    again.index(embeddings.numpy(), scenes.labels)
    assert [found.ids for found in again.search(embeddings, 4)] == [found.ids for found in model.search(scenes, 4)]
    assert [found.ids for found in again.search(list(embeddings), 4)] == [
        found.ids for found in model.search(images, 4)
    ]


def test_half_precision_networks():
    model = MultiLabelInferenceModel(torch.nn.Linear(8, 4).to(torch.bfloat16), dtype=torch.bfloat16)
    images = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    model.index(images, torch.ones(20, 1))
    assert model.search(images[:1], 1)[0].ids == [0]
    assert model.search(images[:1], 1)[0].distances.dtype is torch.float32


def test_adding_and_removing(archive):
    images, labels = archive
    model = MultiLabelInferenceModel(torch.nn.Identity(), classes=CLASSES)
    for start in range(0, 60, 25):
        model.index(images[start : start + 25], labels[start : start + 25], NAMES[start : start + 25])
    gone = [NAMES[row] for row in (0, 24, 25, 59)]
    model.remove(gone)
    model.index(images[:1], labels[:1], ["0.png"])  # under its old name, at the end
    assert model.ids == [name for name in NAMES if name not in gone] + ["0.png"]
    for query in images[:6]:
        expected = [name for name in nearest(images, labels, query, 60)[0] if name not in gone[1:]]
        found = model.search(query[None], 57)[0]
        assert found.ids == expected
        assert torch.equal(found.labels, labels[[NAMES.index(name) for name in found.ids]])
    model.remove(model.ids)
    assert len(model) == 0
    with pytest.raises(ValueError, match=r"the index is empty; call index\(\)"):
        model.search(images[:1])


def test_ids_count_on_after_a_removal(archive):
    images, _ = archive
    model = MultiLabelInferenceModel(torch.nn.Identity())
    assert model.index(images[:3]) == [0, 1, 2]
    model.remove([2])
    assert model.index(images[3:5]) == [3, 4]
    assert model.index(images[5:6], ids=torch.tensor([40])) == [40]
    assert model.search(images[5:6], 1)[0].ids == [40]


@pytest.mark.parametrize("with_labels", [True, False])
def test_save_and_load(archive, model, tmp_path, with_labels):
    images, labels = archive
    if not with_labels:
        model = MultiLabelInferenceModel(torch.nn.Identity())
        model.index(images, ids=NAMES)
    model.remove(NAMES[5:9])
    model.save(tmp_path / "index")
    model.save(tmp_path / "index")  # over itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
    loaded = MultiLabelInferenceModel(torch.nn.Identity())
    loaded.load(str(tmp_path / "index"))
    assert loaded.classes == model.classes
    assert loaded.ids == model.ids
    for mine, theirs in zip(loaded.search(images[:5], 9), model.search(images[:5], 9), strict=True):
        assert mine.ids == theirs.ids
        assert torch.equal(mine.distances, theirs.distances)
    if with_labels:
        assert torch.equal(loaded.labels, model.labels)
        found = loaded.search(images[:1], 50, having=["ship"])[0]
        assert found.ids == model.search(images[:1], 50, having=["ship"])[0].ids
    loaded.index(images[5:6], labels[5:6] if with_labels else None, ["new.png"])
    assert loaded.search(images[5:6], 1)[0].ids == ["new.png"]


def test_what_is_saved_holds_no_pickle(model, tmp_path):
    model.save(tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == sorted(module.FILES)
    json.loads((tmp_path / "index" / "index.json").read_text())
    np.load(tmp_path / "index" / "labels.npy", allow_pickle=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "No such file"),
        (lambda folder: (folder / "index.json").write_text("{}"), "format"),
        (lambda folder: (folder / "index.faiss").write_bytes(b"IxF2"), "does not hold an index"),
        (lambda folder: np.save(folder / "keys.npy", np.arange(3)), r"of \[3, 60\] entries"),
        (lambda folder: np.save(folder / "labels.npy", np.zeros((2, 4), bool)), r"of \[2, 60\] entries"),
        (lambda folder: np.save(folder / "keys.npy", np.array([{}])), "pickle|Object arrays"),
    ],
)
def test_damaged_folders_are_refused(archive, model, tmp_path, damage, message):
    model.save(tmp_path / "index")
    damage(tmp_path / "index")
    with pytest.raises(ValueError, match=message):
        model.load(tmp_path / "index")
    assert model.search(archive[0][:1], 1)[0].ids == ["0.png"]  # as before


def test_a_folder_with_other_files_is_not_replaced(model, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something other than an index"):
        model.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_failing_save_keeps_the_old_index_and_its_neighbours(archive, model, tmp_path, monkeypatch):
    for name in ("index.old", "index.new"):
        (tmp_path / name).mkdir()
    model.save(tmp_path / "index")
    model.remove(NAMES[:1])
    monkeypatch.setattr(module.np, "save", lambda *args: (_ for _ in ()).throw(OSError("no space left on device")))
    with pytest.raises(OSError, match="no space left"):
        model.save(tmp_path / "index")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "index.new", "index.old"]
    model.load(tmp_path / "index")
    assert model.ids == NAMES


def test_other_classes_are_refused(model, tmp_path):
    model.save(tmp_path / "index")
    other = MultiLabelInferenceModel(torch.nn.Identity(), classes=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="load it into a new model"):
        other.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), ["a"]), ValueError, r"one id per image \(2\), got 1"),
        (lambda m, x: m.index(x[:2], torch.ones(3, 4), ["a", "b"]), ValueError, "labels must"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 3), ["a", "b"]), ValueError, "labels must"),
        (lambda m, x: m.index(x[:2], None, ["a", "b"]), ValueError, "images in the index have labels"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), ["a", "a"]), ValueError, "occurs twice"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), ["a", "7.png"]), ValueError, "'7.png' is in the index already"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), [1, 2]), TypeError, "all integers or all strings"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), [True, False]), TypeError, "integers, strings or paths"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4)), ValueError, "strings for ids"),
        (lambda m, x: m.index(x[:2, :5], torch.ones(2, 4), ["a", "b"]), ValueError, "size 8 as in the index, got 5"),
        (
            lambda m, x: m.index(x[:2] * np.nan, torch.ones(2, 4), ["a", "b"]),
            ValueError,
            "NaN or infinity in 2 of 2 rows",
        ),
        (lambda m, x: m.search(x[:2] * np.inf), ValueError, "embeddings of the images must be finite"),
        (lambda m, x: m.index("folder"), TypeError, "images must be a tensor"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), ["a", "b"], augment_k=-1), ValueError, "augment_k"),
        (lambda m, x: m.index(x[:2], torch.ones(2, 4), ["a", "b"], batch_size=0), ValueError, "batch_size"),
        (lambda m, x: m.remove(["0.png", "nowhere.png"]), ValueError, "ids must hold ids of the index, got 'nowhere"),
        (lambda m, x: m.search(x[:2], 0), ValueError, "k must be at least 1"),
        (lambda m, x: m.search(x[:2, :3]), ValueError, "embedding size of the index, 8, got 3"),
        (lambda m, x: m.search(x[:2], having=["shp"]), ValueError, "got 'shp'; the classes are: river, ship"),
        (lambda m, x: m.search(x[:2], lacking=[4]), ValueError, "columns below 4, got 4"),
        (lambda m, x: m.search(x[:2], lacking=[-1]), ValueError, "lacking"),
        (lambda m, x: m.search(x[:2], query_ids=["0.png"]), ValueError, r"one id per query \(2\), got 1"),
        (lambda m, x: m.search(x[:2], query_ids=["0.png", "x"]), ValueError, "query_ids must hold ids of the index"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(archive, model, call, error, message):
    images, labels = archive
    with pytest.raises(error, match=message):
        call(model, images)
    assert model.ids == NAMES
    assert model.search(images[7:8], 1, ["river"])[0].ids == nearest(images, labels, images[7], 1, ["river"])[0]


def test_faults_of_the_trunk_change_nothing(archive, model):
    def trunk(images):
        if torch.equal(images, archive[0][4:8]):
            raise RuntimeError("out of memory")
        return images

    class Trunk(torch.nn.Module):
        def forward(self, images):
            return trunk(images)

    model.trunk = Trunk()
    with pytest.raises(RuntimeError, match="out of memory"):
        model.index(archive[0][:12], archive[1][:12], [f"new {n}" for n in range(12)], batch_size=4)
    assert len(model) == 60
    assert model.knn_func.index.ntotal == 60


def test_an_index_without_labels(archive):
    images, _ = archive
    model = MultiLabelInferenceModel(torch.nn.Identity())
    model.index(images)
    with pytest.raises(ValueError, match="predict_labels needs labels"):
        model.predict_labels(images[:1])
    with pytest.raises(ValueError, match="having and lacking need labels"):
        model.search(images[:1], having=[0])
    with pytest.raises(ValueError, match="the images in the index have no labels"):
        model.index(images[:1], torch.ones(1, 2))


def test_no_images(archive, model):
    images, _ = archive
    assert model.search(images[:0]) == []
    assert model.predict_labels(images[:0]).shape == (0, 4)
    assert model.index(images[:0], torch.ones(0, 4), []) == []
    assert len(model) == 60


def test_knn_func_must_keep_its_index():
    with pytest.raises(ValueError, match="reset_before=False, reset_after=False"):
        MultiLabelInferenceModel(torch.nn.Identity(), knn_func=FaissKNN())
    with pytest.raises(TypeError, match="knn_func must be PML's FaissKNN, got CustomKNN"):
        MultiLabelInferenceModel(torch.nn.Identity(), knn_func=CustomKNN(None))


@pytest.mark.parametrize("classes", ["river", ["river", 3]])
def test_classes_are_names(classes):
    with pytest.raises(TypeError, match="classes must be a sequence of names"):
        MultiLabelInferenceModel(torch.nn.Identity(), classes=classes)
    with pytest.raises(ValueError, match="a name occurs twice"):
        MultiLabelInferenceModel(torch.nn.Identity(), classes=["a", "a"])


def test_a_foreign_faiss_index_is_noticed(archive, model, tmp_path):
    other = InferenceModel(torch.nn.Identity(), data_device="cpu")
    other.train_knn(archive[0][:10])
    other.save_knn_func(str(tmp_path / "theirs"))
    model.load_knn_func(str(tmp_path / "theirs"))
    with pytest.raises(ValueError, match="holds 10 vectors and not the 60"):
        model.search(archive[0][:1])


def test_searches_without_filters_use_the_gpus(archive, model, monkeypatch):
    """A stand-in for faiss's GPU functions, since faiss-cpu has none."""
    moved = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(
        module, "convert_to_gpu_index", lambda index, gpus: moved.append(index) or faiss.clone_index(index)
    )
    images, _ = archive
    model.search(images[:1], having=["ship"])
    model.search(images[:1], k=3000)
    assert not moved
    model.search(images[:1])
    model.search(images[:1])
    assert len(moved) == 1  # once, and again after a change
    model.remove(["0.png"])
    assert model.search(images[:1], k=1)[0].ids != ["0.png"]
    model.index(images[:1], archive[1][:1], ["new.png"])
    assert model.search(images[:1], k=1)[0].ids == ["new.png"]
    assert len(moved) == 3


def plain_model(**options):
    return MultiLabelInferenceModel(torch.nn.Identity(), **options)


def test_running_numbers_go_on_after_loading(archive, tmp_path):
    model, loaded = plain_model(), plain_model()
    model.index(archive[0][:4])
    model.remove([3])
    model.save(tmp_path / "index")
    loaded.load(tmp_path / "index")
    assert loaded.index(archive[0][4:5]) == [4]


def test_running_numbers_do_not_repeat_given_ids(archive):
    model = plain_model()
    model.index(archive[0][:2], ids=[2, 3])
    with pytest.raises(ValueError, match="ids must be given: the running number"):
        model.index(archive[0][2:3])


def test_predicted_labels_need_euclidean_distances(archive):
    inner = FaissKNN(reset_before=False, reset_after=False, index_init_fn=faiss.IndexFlatIP)
    model = plain_model(normalize_embeddings=False, knn_func=inner)
    model.index(*archive)
    with pytest.raises(ValueError, match="needs an L2 index"):
        model.predict_labels(archive[0][:1])


def test_without_neighbours_no_label_is_predicted(archive):
    model = plain_model()
    model.index(archive[0][:1], torch.ones(1, 4))
    assert model.predict_labels(archive[0][:1], query_ids=[0]).tolist() == [[0, 0, 0, 0]]


def test_a_loaded_index_without_classes_keeps_those_of_the_model(archive, tmp_path):
    model, loaded = plain_model(), plain_model(classes=CLASSES)
    model.index(*archive)
    model.save(tmp_path / "index")
    loaded.load(tmp_path / "index")
    assert loaded.classes == CLASSES


def test_labels_of_a_data_set_must_have_a_column_per_class(archive):
    with pytest.raises(ValueError, match="one column per class"):
        plain_model(classes=["a", "b"]).index(torch.utils.data.TensorDataset(*archive))


def test_an_index_without_entries_takes_labels_of_another_width(archive):
    model = plain_model()
    model.index(*archive)
    model.remove(model.ids)
    model.index(archive[0][:5], torch.ones(5, 2))
    assert model.labels.shape == (5, 2)


def test_augmented_embeddings_have_length_1():
    model = plain_model(normalize_embeddings=False)
    with pytest.raises(ValueError, match="augment_k must be 0 with normalize_embeddings=False, got 3"):
        model.index(torch.randn(9, 4), augment_k=3)
    assert len(model) == 0


@pytest.mark.parametrize(("ids", "error"), [(["a"] * 60, ValueError), (["x", "y"], ValueError), ("a" * 60, TypeError)])
def test_ids_are_checked_before_the_images_are_embedded(archive, ids, error):
    class Unread(torch.utils.data.TensorDataset):
        def __getitem__(self, index):
            raise AssertionError("an image was read")

    with pytest.raises(error, match="ids must"):
        plain_model().index(Unread(*archive), ids=ids)


def test_a_read_only_memory_mapped_array(archive, tmp_path):
    np.save(tmp_path / "images.npy", archive[0].numpy())
    model = plain_model()
    model.index(np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert [found.ids for found in model.search(archive[0][:3], k=1)] == [[0], [1], [2]]


def test_a_filter_keeps_the_settings_of_the_index():
    graph = faiss.IndexHNSWFlat(4, 8)
    graph.hnsw.efSearch = 77
    assert module.only(graph, np.arange(3)).efSearch == 77
    cells = faiss.index_factory(4, "IVF2,Flat")
    cells.nprobe, cells.max_codes = 2, 9
    found = module.only(cells, np.arange(3))
    assert (found.nprobe, found.max_codes) == (2, 9)


def test_results_are_printed_in_a_line():
    found = SearchResults(["a"], torch.tensor([0.5]), None)
    assert re.match(r"SearchResults\(ids=\['a'\], distances=tensor\(\[0.5000\]\), labels=None\)", repr(found))
