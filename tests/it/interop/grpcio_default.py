"""A plain grpcio client without a single option, over the Unix socket.

Arguments: a folder with the generated code, the socket, a text. Sends the text
to bob in every form of target that grpcio knows, reads the health, follows one
event stream to its first message. Prints `ok`.
"""

import os
import sys

sys.path.insert(0, sys.argv[1])

import grpc  # noqa: E402
from claudemesh.v1 import control_pb2, control_pb2_grpc, messaging_pb2, messaging_pb2_grpc  # noqa: E402

socket, text = sys.argv[2:4]
relative = os.path.relpath(socket)
for number, target in enumerate([f"unix:{socket}", f"unix://{socket}", f"unix:{relative}"]):
    with grpc.insecure_channel(target) as channel:
        messaging = messaging_pb2_grpc.MessagingServiceStub(channel)
        control = control_pb2_grpc.ControlServiceStub(channel)
        for repeat in range(3):
            request = messaging_pb2.SendRequest(to="bob", message=f"{text} {number}")
            request.client_message_id = f"grpcio-{number}"
            answer = messaging.Send(request, timeout=20)
            assert answer.client_message_id == f"grpcio-{number}", answer
            health = control.GetHealth(control_pb2.GetHealthRequest(), timeout=20)
            assert health.mesh == "demo", health
        try:
            messaging.Send(messaging_pb2.SendRequest(to="nobody", message=text), timeout=20)
            raise SystemExit("a send to nobody was taken")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
print("ok")
