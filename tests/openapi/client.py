"""Works a server by the client that was generated from its document, and nothing else.

Every answer is read by the generated classes, which fail on a field that is missing or of another
type; `known` fails on a field that the document does not have.
"""

import importlib
import inspect
import os
import pkgutil

import attrs

import berth_client.api
from berth_client import AuthenticatedClient, Client
from berth_client.api.containers import (
    containers_change,
    containers_list,
    containers_logs,
    containers_make,
    containers_remove,
    containers_show,
    containers_start,
    containers_stop,
    containers_wait,
)
from berth_client.api.images import images_list
from berth_client.api.operations import operations_show
from berth_client.api.sessions import sessions_me
from berth_client.api.system import system_list
from berth_client.models import (
    ContainerChange,
    ContainerCreate,
    LimitsChange,
    Problem,
)

URL = os.environ["BERTH_URL"]
client = AuthenticatedClient(base_url=URL, token=os.environ["BERTH_TOKEN"], timeout=60)
nobody = Client(base_url=URL, timeout=60)

# Objects whose fields are named by people or differ from kind to kind.
FREE = {"additional_properties"}
# They go on for as long as they are listened to, or are the document itself.
NOT_READ = {"events_follow", "system_document"}


def known(value, place):
    """Fails when an answer holds a field that its description does not have."""
    if isinstance(value, list):
        for item in value:
            known(item, place)
    elif attrs.has(type(value)):
        name = type(value).__name__
        more = getattr(value, "additional_properties", {})
        named = [field.name for field in attrs.fields(type(value)) if field.name not in FREE]
        assert not more or not named, f"{place}: {name} has {sorted(more)}, which is not described"
        for field in named:
            known(getattr(value, field), f"{place}.{field}")


def done(response, status):
    """What came, when it came with this status."""
    assert response.status_code == status, f"{response.status_code}: {response.content!r}"
    assert response.parsed is None or not isinstance(response.parsed, Problem) or status >= 400
    known(response.parsed, "answer")
    return response.parsed


def refused(response, status, code):
    """A problem of this status and code."""
    problem = done(response, status)
    assert isinstance(problem, Problem), problem
    assert (problem.status, problem.type_) == (status, f"/problems/{code}"), problem
    assert problem.detail and problem.title and problem.request_id, problem
    return problem


def read_all():
    """Everything that can be read without naming an object."""
    count = 0
    for module in pkgutil.walk_packages(berth_client.api.__path__, "berth_client.api."):
        call = importlib.import_module(module.name)
        name = module.name.rsplit(".", 1)[1]
        if not hasattr(call, "sync_detailed") or name in NOT_READ:
            continue
        needed = [
            parameter.name
            for parameter in inspect.signature(call.sync_detailed).parameters.values()
            if parameter.default is inspect.Parameter.empty and parameter.name != "client"
        ]
        if needed or call._get_kwargs()["method"] != "get":
            continue
        response = call.sync_detailed(client=client)
        if response.status_code == 403:
            # For the machine's root alone.
            assert isinstance(response.parsed, Problem), name
            continue
        known(done(response, 200), name)
        count += 1
    assert count > 20, count
    print(f"{count} lists and reports were read")


me = done(sessions_me.sync_detailed(client=client), 200)
assert me.name == "olga", me
assert done(containers_list.sync_detailed(client=client), 200).items == []
images = done(images_list.sync_detailed(client=client), 200).items
assert len(images) == 1, images

# An object's life.
wish = ContainerCreate(image=images[0].id, name="made-by-client")
wish.command = ["/bin/sh", "-c", "echo hello; sleep 600"]
made = done(containers_make.sync_detailed(client=client, body=wish, idempotency_key="k1"), 201)
assert made.status == "created" and made.name == "made-by-client", made
again = containers_make.sync_detailed(client=client, body=wish, idempotency_key="k1")
assert again.parsed.id == made.id, again
started = done(containers_start.sync_detailed(made.id, client=client), 200)
assert started.status == "running", started
shown = containers_show.sync_detailed("made-by-client", client=client)
assert done(shown, 200).id == made.id and shown.headers["etag"], shown
waited = done(containers_wait.sync_detailed(made.id, client=client, timeout_secs=0), 200)
assert waited.status == "running", waited
change = ContainerChange(limits=LimitsChange(memory_bytes=32 << 20))
changed = done(containers_change.sync_detailed(made.id, client=client, body=change), 200)
assert changed.limits.memory_bytes == 32 << 20, changed
assert [one.id for one in done(containers_list.sync_detailed(client=client), 200).items] == [made.id]
read_all()

# What is refused.
fields = refused(
    containers_make.sync_detailed(client=client, body=ContainerCreate(image="", name="No Name")),
    422,
    "request.invalid",
).fields
assert {field.pointer for field in fields} >= {"/name"}, fields
refused(containers_make.sync_detailed(client=client, body=wish), 409, "container.name-taken")
refused(operations_show.sync_detailed("none", client=client), 404, "not-found")
refused(containers_list.sync_detailed(client=nobody), 401, "unauthenticated")
kinds = done(system_list.sync_detailed(client=nobody), 200).items
assert {"not-found", "unauthenticated"} <= {kind.code for kind in kinds}

ended = done(containers_stop.sync_detailed(made.id, client=client, grace_secs=0), 200)
assert ended.status == "exited" and ended.exit_, ended
log = done(containers_logs.sync_detailed(made.id, client=client), 200)
assert log == "hello\n", log
assert containers_remove.sync_detailed(made.id, client=client).status_code == 204
refused(containers_show.sync_detailed(made.id, client=client), 404, "not-found")
print("all of it was done")
