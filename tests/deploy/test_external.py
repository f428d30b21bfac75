"""ONNX models that reach for files outside themselves are refused before an engine sees them."""


import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.external_data_helper import _get_all_tensors
from tiny import image_model

from outdo.deploy.external import refuse_external_data
from outdo.errors import BundleError


def outside() -> TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], np.zeros(1, np.float32))
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def graph(*nodes, initializers=()):
    return helper.make_graph(list(nodes), "g", [], [], list(initializers))


def constant():
    return helper.make_node("Constant", [], ["c"], value=outside())


def sparse():
    return helper.make_sparse_tensor(outside(), helper.make_tensor("i", TensorProto.INT64, [1], [0]), [1])


def with_sparse_initializer():
    made = graph()
    made.sparse_initializer.append(sparse())
    return helper.make_model(made)


def of_function():
    made = helper.make_function("f", "f", [], ["c"], [constant()], [helper.make_opsetid("", 18)])
    return helper.make_model(graph(), functions=[made])


def in_training():
    made = helper.make_model(graph())
    made.training_info.add().algorithm.CopyFrom(graph(initializers=[outside()]))
    return made


PLACES = {
    "initializer": lambda: helper.make_model(graph(initializers=[outside()])),
    "constant": lambda: helper.make_model(graph(constant())),
    "branch": lambda: helper.make_model(graph(helper.make_node("If", ["x"], ["y"], then_branch=graph(constant()),
                                                               else_branch=graph()))),
    "sparse constant": lambda: helper.make_model(graph(helper.make_node("Constant", [], ["c"], sparse_value=sparse()))),
    "sparse initializer": with_sparse_initializer,
    "function": of_function,
    "training": in_training,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_wherever_it_hides(place):
    with pytest.raises(BundleError, match="files outside the bundle"):
        refuse_external_data(PLACES[place]().SerializeToString(), "b")


def test_a_place_alone_or_a_path_alone_is_refused():
    for field in ("data_location", "external_data"):
        tensor = outside()
        tensor.ClearField(field)
        with pytest.raises(BundleError, match="files outside"):
            refuse_external_data(helper.make_model(graph(initializers=[tensor])).SerializeToString(), "b")


def test_another_spelling_of_a_number_hides_nothing():
    plain = helper.make_model(graph(initializers=[outside()])).SerializeToString()
    spelt = plain.replace(b"\x70\x01", b"\xf0\x80\x00\x81\x00")  # the same key and value in more bytes than needed
    tensor = onnx.TensorProto.FromString(b"\xf0\x80\x00\x81\x00")
    assert tensor.data_location == TensorProto.EXTERNAL
    assert spelt != plain
    with pytest.raises(BundleError, match="files outside"):
        refuse_external_data(spelt, "b")


def test_whole_models_pass():
    assert not reaches_out(image_model(3))
    refuse_external_data(image_model(3), "b")  # raises nothing


def reaches_out(data: bytes) -> bool:
    """As the onnx library reads it."""
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return False
    return any(tensor.external_data or tensor.data_location == TensorProto.EXTERNAL
               for tensor in _get_all_tensors(model))


@given(st.sampled_from(["initializer", "constant", "branch"]), st.data())
def test_no_change_of_bytes_hides_external_data(place, data):
    mutant = bytearray(PLACES[place]().SerializeToString())
    assert reaches_out(bytes(mutant))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        mutant[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        refuse_external_data(bytes(mutant), "b")
    except BundleError:
        return
    assert not reaches_out(bytes(mutant))


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(data):
    try:
        refuse_external_data(data, "b")  # nothing else is raised
    except BundleError:
        return
    assert not reaches_out(data)


def test_graphs_without_end_are_refused():
    made = graph()
    for _ in range(15):
        made = graph(helper.make_node("If", ["x"], ["y"], then_branch=made, else_branch=graph()))
    with pytest.raises(BundleError, match="does not hold an ONNX model"):
        refuse_external_data(helper.make_model(made).SerializeToString(), "b")
