"""The messages of `proto/`, made when they are needed."""

import pathlib
import tempfile

import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
PACKAGE = "claudemesh.v1"


def _load():
    files = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "claudemesh/v1").glob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile() as out:
        arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out.name}"]
        if protoc.main(arguments + files) != 0:
            raise SystemExit("the definitions in proto/ cannot be compiled")
        return descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())


_set = _load()
_pool = descriptor_pool.DescriptorPool()
for _file in _set.file:
    _pool.Add(_file)

# Each method by its name, which is unique over the services.
METHODS = {
    method.name: method
    for file in _set.file
    if file.package == PACKAGE
    for service in file.service
    for method in _pool.FindServiceByName(f"{PACKAGE}.{service.name}").methods
}


def message_class(descriptor):
    """The class of a message, by its descriptor or its name in the package."""
    if isinstance(descriptor, str):
        descriptor = _pool.FindMessageTypeByName(f"{PACKAGE}.{descriptor}")
    return message_factory.GetMessageClass(descriptor)


def from_json(descriptor, value):
    return json_format.ParseDict(value, message_class(descriptor)())


def to_json(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def long_enums(descriptor, value):
    """The JSON of REST and the command line with the full names of enum values."""
    if isinstance(descriptor, str):
        descriptor = message_class(descriptor).DESCRIPTOR
    if not isinstance(value, dict) or descriptor.file.package != PACKAGE:
        return value
    return {name: _long_field(descriptor.fields_by_name.get(name), item) for name, item in value.items()}


def _long_field(field, value):
    if field is None:
        return value
    if isinstance(value, list):
        return [_long_field(field, item) for item in value]
    if field.message_type is not None:
        return value if field.message_type.GetOptions().map_entry else long_enums(field.message_type, value)
    if field.enum_type is not None and isinstance(value, str):
        names = field.enum_type.values_by_name
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return value if value in names else prefix + value.upper()
    return value
