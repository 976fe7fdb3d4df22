//! Codes about the request itself: its form, its size, its sender, its turn.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "request.invalid",
        422,
        "Part of the request is wrong",
        "A field is missing, unknown, of another type, or out of its bounds. `fields` says where, as \
         JSON pointers into the body, or `?name` for a parameter of the query.",
        "Correct the fields that are named and send it again.",
    ),
    known(
        "request.malformed",
        400,
        "The request cannot be read",
        "The body is no JSON, holds a name twice or nests too deep; or a header, a path or a form \
         cannot be read.",
        "Send one JSON document in UTF-8, or the form as the page has it.",
    ),
    known(
        "request.media-type",
        415,
        "The body is of another kind than is read",
        "The API reads `application/json` without content coding; an image archive is sent as it is.",
        "Send the header `Content-Type: application/json`, and no `Content-Encoding`.",
    ),
    known(
        "request.no-websocket",
        400,
        "A WebSocket is needed",
        "What goes to and fro with a program goes over a WebSocket (RFC 6455, version 13), and the request did not ask for one.",
        "Use a WebSocket client; for a program that needs no input while it runs there is `POST …/exec`.",
    ),
    known(
        "request.too-large",
        413,
        "The request is too large",
        "A body is read up to 1 MiB; an archive of images up to what the operator allows.",
        "Send less. For a larger archive, ask an operator, or pull the image from a registry.",
    ),
    known(
        "request.too-long",
        422,
        "More than one container can be told",
        "Command, environment and labels of a container travel in one message to the supervisor, \
         which has a limit.",
        "Shorten command and environment; put long text into the image.",
    ),
    known(
        "request.timeout",
        503,
        "It took too long",
        "The server did not have the answer within the time that a request gets. What was asked for \
         may still be done.",
        "Look at how it stands, then ask again. When it comes often, the machine is overloaded: tell an \
         operator.",
    ),
    known(
        "request.cross-site",
        403,
        "The request comes from another site",
        "The browser says that a page of another site sent it. A signed-in browser must not be made to \
         act by other sites, so it is refused.",
        "Open the page here and do it again. A script uses a token, or sends an `Origin` header with this \
         server’s address.",
    ),
    known(
        "request.refused",
        400,
        "The request was refused",
        "It was refused before anything here looked at it; the status is all that is known.",
        "Compare the request with the API’s description, `/help/api`.",
    ),
    known(
        "method-not-allowed",
        405,
        "Not with this method",
        "The path is known, but not with this HTTP method.",
        "The header `Allow` and the API’s description say which methods the path knows.",
    ),
    known(
        "not-found",
        404,
        "There is no such thing",
        "It was removed, never was, or is somebody else’s: all three are answered alike, so that nobody \
         learns what others have.",
        "Look for it in your lists. If it is a colleague’s, ask them or an operator.",
    ),
    known(
        "host.unknown",
        421,
        "Not under this name",
        "The request names a host that this server does not go by. It answers to loopback names, to the \
         address itself, to its certificate’s names and to those in `server.hosts`, so that no other \
         site’s name can be pointed at it.",
        "Use one of its names. An operator adds a name to `server.hosts`.",
    ),
    known(
        "idempotency-key.invalid",
        422,
        "No usable Idempotency-Key",
        "The header is empty, longer than 128 characters, not ASCII, or there twice.",
        "Send a random key of your own for each thing that is to be made, such as a UUID.",
    ),
    known(
        "idempotency-key.reused",
        422,
        "The Idempotency-Key was used before",
        "The same key came before with another request. A key stands for one request, which may be \
         repeated.",
        "Use a new key for a new request.",
    ),
    known(
        "edit.stale",
        412,
        "It was changed since you looked",
        "`If-Match` names a version that is not there any more: somebody else has changed it.",
        "Get it again, look at what is different, and send your change with the new ETag.",
    ),
    known(
        "export.too-large",
        422,
        "Too much for one export",
        "More rows match than one export holds.",
        "Narrow it by time (`since`, `until`) or by a filter, and export in parts.",
    ),
    known(
        "too-many-requests",
        429,
        "Too many requests",
        "The budget of requests a minute is used up: of your account, or of your address before signing \
         in. The `RateLimit` headers say how much is left.",
        "Wait for as long as `Retry-After` says. Scripts do better to follow a stream (`…/events`) than to \
         ask again and again.",
    ),
    known(
        "server.busy",
        503,
        "Too many requests at once",
        "The server works on as many requests as it takes at once. Nothing was changed; containers are \
         not touched.",
        "Try again in a moment.",
    ),
    known(
        "stream.too-many",
        507,
        "Too many open streams",
        "You have as many live streams open (events, logs, figures, progress) as one person may.",
        "Close pages or scripts that follow something. The operator’s setting is `server.streams_max`.",
    ),
];
