import pytest

from mlipjax.cli.wording import as_options, option_words
from mlipjax.settings import FinetuneSettings


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ('Set e0s="estimate" (a shift).', "Set --e0s estimate (a shift)."),
        ("to train all the same, allow_e0_mismatch=True.", "to train all the same, --allow-e0-mismatch."),
        ("hold out more (valid_fraction=0.2).", "hold out more (--valid-fraction 0.2)."),
        ('ignore=("units", "sign")', "--ignore units sign"),
        ("of every kind (valid_fraction), or", "of every kind (--valid-fraction), or"),
        ("config_type=IsolatedAtom is no option", "config_type=IsolatedAtom is no option"),
    ],
)
def test_settings_are_named_as_options(library, command):
    assert as_options(library, FinetuneSettings) == command


def test_errors_of_the_library_leave_a_command_in_its_words():
    with pytest.raises(ValueError, match="set --e0s model"), option_words(FinetuneSettings):
        raise ValueError('set e0s="model".')
    with pytest.raises(OSError, match="e0s=1"), option_words(FinetuneSettings):
        raise OSError("e0s=1")
