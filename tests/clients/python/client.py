"""What an application does with PyPI's spiffe, told as one JSON object a line."""

import json
import sys
import threading
import time

from spiffe import JwtSource, JwtSvid, WorkloadApiClient, X509Source

AUDIENCE = "clients.test"

printing = threading.Lock()


def tell(event, **pairs):
    with printing:
        print(json.dumps({"event": event, **pairs}), flush=True)


def fail(what, error):
    tell("error", what=what, text=f"{type(error).__name__}: {error}")


def tell_svid(by, context):
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    serial = format(svid.leaf.serial_number, "x")
    tell("x509", by=by, id=str(svid.spiffe_id), serial=serial, roots=len(bundle.x509_authorities))


def tell_jwt_bundles(bundles):
    for bundle in bundles:
        kids = sorted(bundle.jwt_authorities)
        tell("jwt-bundle", domain=str(bundle.trust_domain), kids=kids)


def use_jwt(client, source):
    """Fetches a token, has it validated by the Workload API and with the bundle, and for an
    audience that it is not for."""
    svid = source.fetch_svid({AUDIENCE}, timeout=2)
    tell("jwt", id=str(svid.spiffe_id), token=svid.token)
    validated = client.validate_jwt_svid(svid.token, AUDIENCE, timeout=2)
    tell("validated", by="server", id=str(validated.spiffe_id))
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    validated = JwtSvid.parse_and_validate(svid.token, bundle, {AUDIENCE})
    tell("validated", by="bundle", id=str(validated.spiffe_id))
    try:
        client.validate_jwt_svid(svid.token, "another.test", timeout=2)
        tell("accepted", audience="another.test")
    except Exception as error:  # the RPC's own, whatever the library wraps it in
        rpc = error if hasattr(error, "code") else error.__cause__
        tell("refused", code="".join(part.capitalize() for part in rpc.code().name.split("_")))


def main():
    client = WorkloadApiClient()
    client.stream_x509_contexts(
        lambda context: tell_svid("watch", context), lambda error: fail("x509", error)
    )
    x509 = X509Source()
    tell_svid("source", x509.get_x509_context())
    x509.subscribe_for_updates(lambda: tell_svid("source", x509.get_x509_context()))
    jwt = JwtSource()
    tell_jwt_bundles(jwt.bundles)
    jwt.subscribe_for_updates(lambda: tell_jwt_bundles(jwt.bundles))
    while True:
        try:
            use_jwt(client, jwt)
        except Exception as error:
            fail("jwt", error)
        if x509.is_closed() or jwt.is_closed():
            fail("source", RuntimeError("closed: nothing would follow any more"))
            sys.exit(1)
        for bundle in client_bundles(client):
            tell("x509-bundle", **bundle)
        time.sleep(0.5)


def client_bundles(client):
    """The library has no watch of X.509 bundles alone: one fetch at a time."""
    try:
        bundles = client.fetch_x509_bundles(timeout=2).bundles
    except Exception as error:
        fail("x509-bundle", error)
        return
    for bundle in bundles:
        authorities = len(bundle.x509_authorities)
        yield {"domain": str(bundle.trust_domain), "authorities": authorities}


main()
