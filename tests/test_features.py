"""Image tokens are those of the pictures, computed once, and kept by base, preparation and content."""

import shutil

import pytest
import torch
from tiny import copy_frames, fresh, make_base

from stkvlm_lib import runs
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.pictures import BrokenFile
from stkvlm_lib.evaluation.asking import predict
from stkvlm_lib.qa.qa_sets import make_records
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.features import FeatureStore, shared_folder


@pytest.fixture
def answerer(base_folder):
    """Counts the pictures that it encodes."""
    answerer = load_answerer(None, str(base_folder))
    encode, answerer.encoded = answerer.encode, 0

    def counted(images):
        answerer.encoded += len(images)
        return encode(images)

    answerer.encode = counted
    return answerer


@pytest.fixture(scope="module")
def names(bundled):
    return [view.image_file for view in bundled.views("valid")[:3]]


def test_they_are_those_of_each_picture_and_its_mirror_image(answerer, bundled, names):
    pictures = [(name, mirrored) for name in names for mirrored in (False, True)]
    known = FeatureStore(answerer, bundled, 4).in_order(pictures, "encode")
    assert len(known) == len(pictures)
    for tokens, (name, mirrored) in zip(known, pictures, strict=True):
        alone = answerer.encode([bundled.by_image_file[name].image(mirrored)])[0]
        torch.testing.assert_close(tokens, alone.cpu())
    assert not torch.allclose(known[0], known[1])


def test_each_is_encoded_once_in_memory_and_on_disk(answerer, bundled, names, tmp_path):
    pictures = [(name, False) for name in names]
    store = FeatureStore(answerer, bundled, 4, tmp_path)
    first = store.in_order(pictures[:2] * 2, "encode")
    assert answerer.encoded == 2
    every = store.in_order(pictures, "encode")
    assert answerer.encoded == 3
    again = FeatureStore(answerer, bundled, 4, tmp_path).in_order(pictures[::-1], "encode")
    assert answerer.encoded == 3
    assert all(torch.equal(a, b) for a, b in zip(again, reversed(every), strict=True))
    assert all(torch.equal(first[i], every[i % 2]) for i in range(4))


def test_what_an_interrupt_comes_after_is_kept(answerer, bundled, names, tmp_path, monkeypatch):
    store, encode = FeatureStore(answerer, bundled, 1, tmp_path), answerer.encode

    def interrupted(images):
        if answerer.encoded == 2:
            raise KeyboardInterrupt
        return encode(images)

    monkeypatch.setattr(answerer, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.in_order([(name, False) for name in names], "encode")
    monkeypatch.setattr(answerer, "encode", encode)
    FeatureStore(answerer, bundled, 1, tmp_path).in_order([(name, False) for name in names], "encode")
    assert answerer.encoded == 3


def test_a_picture_that_has_changed_is_encoded_again(answerer, tmp_path):
    frames = copy_frames(tmp_path / "frames", "valid", 1)
    folder = read_frames(frames)
    first, second = folder.views("valid")[:2]
    picture = (first.image_file, False)
    before = FeatureStore(answerer, folder, 4, tmp_path / "kept").in_order([picture], "encode")[0]
    shutil.copy(second.image_path, first.image_path)
    after = FeatureStore(answerer, folder, 4, tmp_path / "kept").in_order([picture], "encode")[0]
    assert answerer.encoded == 2 and not torch.equal(before, after)
    moved = read_frames(frames.rename(tmp_path / "moved"))
    FeatureStore(answerer, moved, 4, tmp_path / "kept").in_order([picture], "encode")
    assert answerer.encoded == 2, "what a picture shows counts, not where it lies"


def test_a_missing_picture_is_named_with_what_to_do(answerer, tmp_path):
    folder = read_frames(copy_frames(tmp_path / "frames", "valid", 1))
    view = folder.views("valid")[0]
    view.image_path.unlink()
    with pytest.raises(BrokenFile, match="picture is missing; restore it"):
        FeatureStore(answerer, folder, 4, tmp_path / "kept").in_order([(view.image_file, False)], "encode")


def test_another_way_to_prepare_pictures_has_its_own(base_folder, bundled, names, tmp_path):
    kept = [
        FeatureStore(load_answerer(None, str(base_folder), image_side=side), bundled, 4, tmp_path).in_order(
            [(names[0], False)], "encode"
        )[0]
        for side in (0, 96)
    ]
    assert [tokens.shape[0] for tokens in kept] == [64, 16] and len(list(tmp_path.iterdir())) == 2


def test_an_adapter_that_sees_keeps_nothing_on_disk_and_the_base_sees_without_it(base_folder, bundled, names, tmp_path):
    seeing = fresh(base_folder, targets="text+connector")
    pictures = [(names[0], False)]
    store = FeatureStore(seeing, bundled, 4, tmp_path)
    ((chunk, tokens),) = store.batches(pictures)
    assert not list(tmp_path.iterdir())
    alone = load_answerer(None, str(base_folder)).encode([bundled.by_image_file[names[0]].image()])
    torch.testing.assert_close(store.base_features(chunk, tokens), alone)
    assert not torch.allclose(tokens, alone)
    text = FeatureStore(fresh(base_folder), bundled, 4)
    ((chunk, tokens),) = text.batches(pictures)
    assert text.base_features(chunk, tokens) is tokens


def test_the_environment_says_where_runs_share_them(monkeypatch, tmp_path):
    assert shared_folder() is None, "tests leave nothing"
    monkeypatch.setenv("STKVLM_FEATURES", str(tmp_path))
    assert shared_folder() == tmp_path
    monkeypatch.delenv("STKVLM_FEATURES")
    assert shared_folder() == runs.OUTPUTS / ".features"


def test_another_base_has_its_own(answerer, bundled, names, tmp_path):
    pictures = [(name, False) for name in names]
    ours = FeatureStore(answerer, bundled, 4, tmp_path / "kept").in_order(pictures, "encode")
    other = load_answerer(None, str(make_base(tmp_path / "other", seed=1)))
    theirs = FeatureStore(other, bundled, 4, tmp_path / "kept").in_order(pictures, "encode")
    assert not torch.allclose(ours[0], theirs[0])
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_same_answers_come_of_them_and_nothing_is_encoded_again(answerer, bundled, names, tmp_path):
    records = [record for record in make_records(bundled, "valid") if record.image_file in names]
    store = FeatureStore(answerer, bundled, 2, tmp_path)
    store.in_order([(name, False) for name in names], "encode")
    before = answerer.encoded
    answers, _ = predict(store, records)
    assert answerer.encoded == before
    told, _ = predict(FeatureStore(answerer, bundled, 2), records)
    assert [p.prediction for p in answers] == [p.prediction for p in told] and answerer.encoded > before


def test_what_passes_in_batches_is_encoded_once_for_all_that_follows(answerer, bundled, names):
    pictures = [(names[0], False), (names[1], True), (names[2], False)]
    store = FeatureStore(answerer, bundled, 2)
    first = list(store.batches(pictures[:2] * 2, "answer"))
    assert [chunk for chunk, _ in first] == [pictures[:2]] and answerer.encoded == 2
    (whole, tokens), (rest, last) = store.batches(reversed(pictures), "pairs")
    assert answerer.encoded == 3 and (whole, rest) == (pictures[:0:-1], pictures[:1])
    assert torch.equal(tokens[1], first[0][1][1]) and torch.equal(last[0], first[0][1][0])
    alone = answerer.encode([bundled.by_image_file[names[1]].image(True)])[0]
    torch.testing.assert_close(tokens[1], alone)


def test_no_more_than_the_limit_stays_in_memory(answerer, bundled, names):
    pictures = [(name, False) for name in names]
    size = answerer.encode([bundled.by_image_file[names[0]].image()]).nbytes
    store, answerer.encoded = FeatureStore(answerer, bundled, 1, limit_mb=2 * size / 1e6), 0
    whole = [features for _, features in store.batches(pictures, "answer")]
    again = [features for _, features in store.batches(pictures, "answer")]
    assert answerer.encoded == 4, "the third, for which there is no room, again"
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_what_was_asked_for_in_order_counts_for_the_limit(answerer, bundled, names):
    pictures = [(name, False) for name in names]
    size = answerer.encode([bundled.by_image_file[names[0]].image()]).nbytes
    store = FeatureStore(answerer, bundled, 1, limit_mb=2 * size / 1e6)
    store.in_order(pictures[:2], "encode")
    answerer.encoded = 0
    for _ in range(2):
        list(store.batches(pictures, "answer"))
    assert answerer.encoded == 2, "the third each time, for which there is no room"
