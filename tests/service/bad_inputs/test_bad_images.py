"""Rock images that are none, over every protocol of tensors: refused by name, and the next one is answered right."""

import numpy as np
import pytest
from cases import IMAGES, ROCK, Tensors, rock_with
from running import Server
from test_bad_inputs import assert_refused, each

MODEL = "permeability"
PROTOCOLS = ("KServe JSON", "KServe binary", "gRPC raw", "gRPC typed")


@pytest.mark.parametrize(("case", "protocol"), each(IMAGES, PROTOCOLS))
def test_images_that_are_not_what_they_claim_are_refused_by_name(server: Server, case: Tensors, protocol: str) -> None:
    assert_refused(server.send(protocol, case.inputs, MODEL), case.on(protocol))
    assert server.send(protocol, rock_with("image", ROCK), MODEL).status == 200


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_image_is_taken_as_booleans_and_as_numbers(server: Server, protocol: str) -> None:
    booleans = rock_with("image", ROCK.astype(bool))[:2]
    assert server.send(protocol, booleans, MODEL).status == 200
    assert server.send(protocol, rock_with("image", ROCK.astype(np.int64)), MODEL).status == 200
