import io
import sys
import warnings

import tqdm
from progress import tidy_output
from pytorch_metric_learning.utils.common_functions import LOGGER


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_are_drawn_on_a_terminal_and_removed(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with tidy_output():
        assert list(tqdm.tqdm(range(3), ncols=40)) == [0, 1, 2]
    drawn = terminal.getvalue()
    assert "0/3" in drawn
    assert "\n" not in drawn
    assert drawn.rsplit("\r", 2)[1].strip() == ""  # spaces overwrite the bar


def test_bars_are_left_out_elsewhere(capsys):
    with tidy_output():
        assert list(tqdm.tqdm(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_the_defaults_of_tqdm_come_back(capsys):
    init = tqdm.tqdm.__init__
    with tidy_output():
        assert tqdm.tqdm.__init__ is not init
    assert tqdm.tqdm.__init__ is init
    list(tqdm.tqdm(range(3)))
    assert "3/3" in capsys.readouterr().err


def test_only_the_known_warning_is_silenced(recwarn):
    with tidy_output():
        warnings.simplefilter("always", append=True)
        warnings.warn("Converting a tensor with requires_grad=True to a scalar may lead to ...", stacklevel=1)
        warnings.warn("another one", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["another one"]


def test_only_the_known_message_of_pml_is_silenced(caplog):
    with tidy_output():
        LOGGER.warning('optimizers is missing "trunk_optimizer"')
        LOGGER.warning("another one")
    LOGGER.warning('optimizers is missing "trunk_optimizer"')
    assert caplog.messages == ["another one", 'optimizers is missing "trunk_optimizer"']
