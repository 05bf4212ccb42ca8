"""The registry's RPC as an OpenAPI 3.0 description, which the registry also serves (wire.md section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from re6st import PROTOCOL, __version__
from re6st.core.wire.rpc import HEADER, METHODS, Access, Method

PATH = "/openapi.json"
"""No method can have this name, since methods are letters and digits."""

Json = dict[str, Any]

SUMMARIES: Mapping[str, tuple[str, str]] = {
    "hello": ("Begin a session.", "A secret of 20 bytes encrypted to the certificate, and the CA's signature of that."),
    "getCa": ("The certificate of the CA.", "PEM."),
    "requestToken": ("Have a token mailed.", ""),
    "requestCertificate": ("Get a certificate, for a token or anonymously.", "PEM; 204 for an unknown token."),
    "renewCertificate": ("Renew the caller's certificate, if it is time to.", "PEM, of the old one if it is not."),
    "rekeyCertificate": (
        "Replace the caller's certificate by one for another key, with the same subject and end.",
        "PEM, of the one there is if it is for that key.",
    ),
    "revokeSuperseded": ("Revoke the caller's certificates that were replaced.", ""),
    "presentCertificate": ("Have a certificate stored that a restored registry has forgotten.", ""),
    "getDh": ("Diffie-Hellman parameters for OpenVPN.", "PEM."),
    "getNetworkConfig": ("The network's parameters.", "JSON, compressed with zlib."),
    "getCountry": ("The country of an IP address.", "Two letters; 204 when unknown."),
    "getBootstrapPeer": (
        "A node to begin with.",
        "Its prefix and addresses, encrypted to the caller; 204: none answers.",
    ),
    "addToken": ("Make a token, with the text the caller gives.", ""),
    "isToken": ("Whether a token exists.", "`1`; 204: no."),
    "deleteToken": ("Delete a token, if it exists.", ""),
    "revoke": ("Revoke a certificate by its serial, or everything of a node by its common name.", ""),
    "updateHMAC": ("The next step of changing babel's keys.", ""),
    "getNodePrefix": ("The common name of the first node with this e-mail address.", "INT/LEN; 204: none."),
    "getIPv6Address": ("The first address of that node's subnet.", "An address; 204: none."),
    "getIPv4Information": ("Where that node is reached from outside.", "An address; 204: unknown."),
    "versions": ("What software the nodes run.", "A JSON object: prefix to version."),
    "topology": ("Who has tunnels to whom.", "A JSON object: common name to common names."),
}
"""What a method does, and what it answers; empty: nothing."""

_BITS = {"type": "string", "pattern": "^[01]{1,128}$", "example": "0000000000000000"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 256}
PARAMETERS: Mapping[str, tuple[str, Json]] = {
    "client_prefix": ("The caller's prefix, in bits.", _BITS),
    "cn": ("The caller's prefix, in bits.", _BITS),
    "protocol": ("The caller's protocol number.", {"type": "string", "pattern": "^[0-9]{1,6}$", "default": "1"}),
    "email": ("An e-mail address.", _TEXT),
    "token": ("A token; empty for an anonymous certificate.", {"type": "string", "maxLength": 256}),
    "req": ("A certificate request in PEM form.", {"type": "string", "maxLength": 16384}),
    "cert": ("A certificate in PEM form.", {"type": "string", "maxLength": 16384}),
    "version": ("The signed version of the parameters that the caller knows, in base64.", {"type": "string"}),
    "location": ("COUNTRY,CONTINENT; empty: by `ip`.", {"type": "string", "example": "FR,EU"}),
    "ip": ("Where the new node is; empty: where the call comes from.", {"type": "string", "example": "192.0.2.1"}),
    "address": ("An IP address.", _TEXT | {"example": "192.0.2.1"}),
    "cn_or_serial": ("A certificate's serial, or a common name INT/LEN.", _TEXT | {"example": "1/16"}),
}

_ERRORS: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "Something is wrong with the parameters, or with the header of the session.",
    HTTPStatus.UNAUTHORIZED: "There is no session with this caller.",
    HTTPStatus.FORBIDDEN: "Not from this origin, or not with this registry's options.",
    HTTPStatus.NOT_FOUND: "There is no such certificate.",
    HTTPStatus.CONFLICT: "It exists, or it is revoked, already.",
    HTTPStatus.TOO_MANY_REQUESTS: "The caller asks too often.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "No space for a prefix, no mail server, a damaged certificate.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database or the clock cannot be relied on now.",
}
_ACCESS: Mapping[Access, str] = {
    Access.PUBLIC: "Everybody may call it.",
    Access.NODE: f"In a session only: the header {HEADER} is the HMAC of the request target.",
    Access.RESTRICTED: "From authorized origins only: this machine, and those of --authorized-origin.",
}


def document() -> Json:
    """The whole description."""
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "re6st registry",
            "version": __version__,
            "description": f"Protocol {PROTOCOL}. All calls are GET, all values text.",
        },
        "paths": {f"/{method.name}": {"get": _operation(method)} for method in METHODS.values()},
        "components": {"securitySchemes": {"session": {"type": "apiKey", "in": "header", "name": HEADER}}},
    }


def _operation(method: Method) -> Json:
    summary, answer = SUMMARIES[method.name]
    operation: Json = {
        "operationId": method.name,
        "tags": [method.access.value],
        "summary": summary,
        "description": _ACCESS[method.access],
        "parameters": [_parameter(name, required) for name, required in method.parameters.items()],
        "responses": _responses(answer),
    }
    if method.access is Access.NODE:
        operation["security"] = [{"session": []}]
    return operation


def _parameter(name: str, required: bool) -> Json:
    description, schema = PARAMETERS[name]
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _responses(answer: str) -> Json:
    responses: Json = {"204": {"description": "Done, or nothing to tell."}}
    if answer:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        responses["200"] = {"description": answer, "content": content}
    for status, text in _ERRORS.items():
        page = {"text/html": {"schema": {"type": "string"}}}
        responses[str(status.value)] = {"description": text, "content": page}
    return responses
