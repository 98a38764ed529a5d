import pytest

from mlipjax.cli.options.training import Finetune
from mlipjax.cli.wording import in_options
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
def test_settings_are_named_in_options(library, command):
    assert in_options(library, FinetuneSettings) == command


def test_names_alone_are_options_but_parts_of_paths_are_not():
    text = (
        "batch_size and learning_rate of /tmp/batch_size/x, batch_size.json and my_batch_size; set allow_e0_mismatch."
    )
    spelt = in_options(text, Finetune)
    assert spelt == (
        "--batch-size and --learning-rate of /tmp/batch_size/x, batch_size.json and my_batch_size; "
        "set --allow-e0-mismatch."
    )
    assert in_options(spelt, Finetune) == spelt
