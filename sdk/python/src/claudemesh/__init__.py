"""Send, read and follow messages through the claudemesh daemon of this host.

    import claudemesh

    with claudemesh.connect() as mesh:
        mesh.send("bob", "the build is green")

`claudemesh.aio` has the same for asyncio, `claudemesh.errors` a class for each
error code, `claudemesh.testing` a mesh for tests.
"""

from claudemesh import errors
from claudemesh._mesh import Events, Mesh, Topics, connect
from claudemesh._model import Event, Message, SendResult
from claudemesh.errors import ClaudemeshError

__version__ = "0.9.0"

__all__ = [
    "ClaudemeshError",
    "Event",
    "Events",
    "Mesh",
    "Message",
    "SendResult",
    "Topics",
    "__version__",
    "connect",
    "errors",
]
