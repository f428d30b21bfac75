"""The server asked in process, as export does."""

import numpy as np
import pytest
from standins import Brightness, Length, picture

from outdo.errors import BundleError
from outdo.serving.batcher import Batcher
from outdo.serving.proof import answers


def test_answers_are_those_of_the_model_and_what_is_refused_has_none():
    model = Brightness()
    given = [picture(40), b"no image", picture(220)]
    found = answers(model, given)
    expected = model.probabilities([model.decode(data) for data in (given[0], given[2])])
    assert np.allclose(found[[0, 2]], expected, atol=1e-6)
    assert np.isnan(found[1]).all()
    assert answers(Length(), ["ten letters"]).shape == (1, 3)


def test_a_server_that_fails_is_no_refusal(monkeypatch):
    class Broken(Brightness):
        def probabilities(self, items):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        answers(Broken(), [picture()])
    monkeypatch.setattr("outdo.serving.proof.Batcher", lambda: Batcher(queue=0))
    with pytest.raises(BundleError, match="answers a validation example with 429"):
        answers(Brightness(), [picture()])
