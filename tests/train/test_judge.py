from mlipjax.train.judge import explain_choice


def record(epoch, valid, anchor=None, weight=1.0):
    score = None if valid is None else valid + weight * (anchor or 0.0)
    return {"epoch": epoch, "valid_loss": valid, "anchor_loss": anchor, "score": score}


def test_the_lowest_validation_loss_needs_no_words():
    records = [record(1, 0.3), record(2, 0.2), record(3, 0.25)]
    assert explain_choice(records[1], records) == "epoch 2 of 3 was best"


def test_where_the_anchor_decided_both_numbers_are_given():
    records = [record(1, 0.3, 0.1), record(2, 0.2, 0.4)]
    text = explain_choice(records[0], records)
    assert "epoch 1 of 2 was best by validation and anchor together (score 0.4)" in text
    assert "epoch 2 has the lower validation loss (0.2 against 0.3)" in text
    assert "anchor loss 0.4 against 0.1, score 0.6" in text


def test_a_model_that_got_no_better_is_said_to_be_the_one_from_before():
    text = explain_choice(record(0, 0.1), [record(1, 0.3), record(2, 0.2)])
    assert text == "epoch 0 of 2, the model before training, was best: nothing was gained by training"
    text = explain_choice(record(0, 0.3, 0.1), [record(1, 0.2, 0.5)])
    assert text.startswith("epoch 0 of 1, the model before training, was best by validation and anchor together")


def test_without_validation_the_last_epoch_is_kept():
    records = [record(1, None), record(2, None)]
    assert "epoch 2 of 2 is kept, the last one" in explain_choice(records[1], records)
