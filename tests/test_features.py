"""Image tokens are those of the pictures, computed once, and kept by base."""

import pytest
import torch
from tiny import make_base

from stkvlm_lib.evaluation.asking import predict_plain
from stkvlm_lib.qa.qa_sets import make_records
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.features import FeatureStore


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
    known = FeatureStore(answerer, bundled, 4).of(pictures, "encode")
    assert list(known) == pictures
    for name, mirrored in pictures:
        alone = answerer.encode([bundled.by_image_file[name].image(mirrored)])[0]
        torch.testing.assert_close(known[name, mirrored], alone.cpu())
    assert not torch.allclose(known[names[0], False], known[names[0], True])


def test_each_is_encoded_once_in_memory_and_on_disk(answerer, bundled, names, tmp_path):
    pictures = [(name, False) for name in names]
    store = FeatureStore(answerer, bundled, 4, tmp_path)
    first = store.of(pictures[:2] * 2, "encode")
    assert answerer.encoded == 2
    every = store.of(pictures, "encode")
    assert answerer.encoded == 3
    again = FeatureStore(answerer, bundled, 4, tmp_path).of(reversed(pictures), "encode")
    assert answerer.encoded == 3 and list(again) == pictures[::-1]
    assert all(torch.equal(again[p], every[p]) for p in pictures)
    assert all(torch.equal(first[p], every[p]) for p in first)


def test_another_base_has_its_own(answerer, bundled, names, tmp_path):
    pictures = [(name, False) for name in names]
    ours = FeatureStore(answerer, bundled, 4, tmp_path / "kept").of(pictures, "encode")
    other = load_answerer(None, str(make_base(tmp_path / "other", seed=1)))
    theirs = FeatureStore(other, bundled, 4, tmp_path / "kept").of(pictures, "encode")
    assert not torch.allclose(ours[pictures[0]], theirs[pictures[0]])
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_same_answers_come_of_them_and_nothing_is_encoded_again(answerer, bundled, names, tmp_path):
    records = [record for record in make_records(bundled, "valid") if record.image_file in names]
    store = FeatureStore(answerer, bundled, 2, tmp_path)
    store.of([(name, False) for name in names], "encode")
    before = answerer.encoded
    answers = predict_plain(store, records, "answer")
    assert answerer.encoded == before
    told = predict_plain(FeatureStore(answerer, bundled, 2), records, "answer")
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
