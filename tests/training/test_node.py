"""What a training pod leaves for Kubernetes when it fails."""

from pathlib import Path

import pytest

from kfp_finetune.errors import StepError, refuse
from kfp_finetune.launch.process import TERMINATED
from kfp_finetune.training.node import LAST_WORDS_BYTES, leaving_last_words


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "termination-log"
    path.write_text("of before, and longer than what is to come" * 9)
    return path


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StepError("training ended with exit status 1\nValueError: it broke"), "exit status 1\nValueError: it broke"),
        (refuse("workspace", "a full volume", "room", "Free space."), "workspace: given a full volume"),
    ],
)
def test_an_error_that_is_told_without_a_traceback_is_left_so(log: Path, error: Exception, words: str) -> None:
    with pytest.raises(type(error)), leaving_last_words(log):
        raise error
    assert log.read_text() == str(error) and words in str(error)


def test_a_crash_leaves_its_traceback(log: Path) -> None:
    with pytest.raises(KeyError), leaving_last_words(log):
        raise KeyError("epochs")
    assert log.read_text().startswith("Traceback (most recent call last)")
    assert log.read_text().endswith("KeyError: 'epochs'\n")


def test_of_a_long_message_the_end_is_left(log: Path) -> None:
    with pytest.raises(StepError), leaving_last_words(log):
        raise StepError("x" * 5000 + "ü" * 500 + "the end")
    assert len(log.read_bytes()) == LAST_WORDS_BYTES
    assert log.read_text().endswith("üüüthe end")


def test_what_ends_as_it_was_told_to_leaves_nothing(log: Path) -> None:
    before = log.read_text()
    with leaving_last_words(log):
        pass
    with pytest.raises(SystemExit), leaving_last_words(log):
        raise SystemExit(TERMINATED)
    assert log.read_text() == before


def test_where_kubernetes_gives_no_file_none_is_made(tmp_path: Path) -> None:
    for path in tmp_path / "absent", tmp_path:
        with pytest.raises(StepError, match="as it was"), leaving_last_words(path):
            raise StepError("as it was")
    assert list(tmp_path.iterdir()) == []
