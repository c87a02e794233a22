"""Serves mutual TLS, and calls the other pods in turn over new connections, for ever.

Its volume is read anew whenever it holds another set, as a careful application does. Each side
verifies the other's chain and that its SPIFFE ID is in the own namespace. Where the volume has a
JWT-SVID, the caller sends it, and the server verifies it with PyJWT by the keys in its own bundle.
/tmp/peers has the addresses of all; /tmp/tally says once a second what was seen."""
import json, os, socket, ssl, sys, threading, time

import jwt

PERIOD, PATIENCE = float(sys.argv[1]), 60
lock = threading.Lock()
tally = {"calls": 0, "served": 0, "tokens": 0, "reloads": -1, "retries": 0, "failures": []}
contexts = {}


def note(key, text=None):
    with lock:
        if text is None:
            tally[key] += 1
        elif len(tally["failures"]) < 20:
            tally["failures"].append(f"{time.strftime('%H:%M:%S', time.gmtime())} {key}: {text}")


def uri(certificate):
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(names) != 1:
        raise ssl.SSLError(f"the peer has the names {names}")
    return names[0]


def token():
    """The own JWT-SVID, or nothing."""
    try:
        with open("/svid/peers.jwt") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def verify(token, expected):
    """By the keys that the own volume has now; the token is of the peer whose certificate was seen."""
    with open("/svid/bundle.json") as file:
        keys = [key for key in json.load(file)["keys"] if key.get("use") == "jwt-svid"]
    wanted = jwt.get_unverified_header(token)["kid"]
    found = [key for key in keys if key["kid"] == wanted]
    if len(found) != 1:
        raise jwt.InvalidKeyError(f"{len(found)} of {len(keys)} published keys are {wanted}")
    key = jwt.PyJWK(found[0], algorithm="RS256")
    claims = jwt.decode(token, key, algorithms=["RS256"], audience="peers",
                        options={"require": ["exp", "sub", "aud"]})
    if claims["sub"] != expected:
        raise jwt.InvalidTokenError(f"the token is {claims['sub']}'s, the certificate {expected}'s")


def context(protocol):
    """A context with the newest set, all of it through one look at ..data."""
    now = os.readlink("/svid/..data")
    with lock:
        made, context = contexts.get(protocol, (None, None))
        if made == now:
            return context
    path = "/svid/" + now
    context = ssl.SSLContext(protocol)
    # Verified are the chain and, by the caller, the SPIFFE ID; host names are not in it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(path + "/ca.crt")
    context.load_cert_chain(path + "/tls.crt", path + "/tls.key")
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # Who comes again is verified again.
        context.num_tickets = 0
        note("reloads")
    with lock:
        contexts[protocol] = (now, context)
    return context


def serve(tcp):
    try:
        tcp.settimeout(PATIENCE)
        with context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(tcp, server_side=True) as tls:
            peer = uri(tls.getpeercert())
            presented = tls.makefile("rb").readline(8192).decode().strip()
            if presented:
                verify(presented, peer)
                note("tokens")
            tls.sendall(f"welcome {peer}\n".encode())
        note("served")
    except Exception as error:
        # What TLS refuses is a failed handshake; a connection that dies is tried again by the caller.
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            note("retries")
        else:
            note("server", repr(error))
        tcp.close()


def listen():
    with socket.create_server(("", 8443), backlog=256) as server:
        open("/tmp/listens", "w").close()
        while True:
            tcp, _ = server.accept()
            threading.Thread(target=serve, args=(tcp,), daemon=True).start()


def connect(address):
    """A busy machine's network may need another try; what TLS refuses gets none."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((address, 8443), timeout=PATIENCE)
        except OSError:
            if time.monotonic() > end:
                raise
            note("retries")
            time.sleep(0.5)


def shake_hands(address):
    with connect(address) as tcp:
        tcp.settimeout(PATIENCE / 3)
        with context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(tcp) as tls:
            peer = uri(tls.getpeercert())
            tls.sendall(token().encode() + b"\n")
            # In TLS 1.3 only the first bytes tell that the server took the own certificate.
            if not tls.recv(1024).startswith(b"welcome "):
                raise ssl.SSLError("the server hung up")
    if peer.rsplit("/", 1)[0] != own:
        raise ssl.SSLError(f"the peer is {peer}")


def call(address):
    for tries_left in (2, 1, 0):
        try:
            shake_hands(address)
            note("calls")
            return
        except Exception as error:
            network = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
            if not network or tries_left == 0:
                note("client", f"{address}: {error!r}")
                return
            note("retries")


def tell():
    with lock:
        text = json.dumps(tally)
    with open("/tmp/tally.new", "w") as file:
        file.write(text)
    os.rename("/tmp/tally.new", "/tmp/tally")


own = sys.argv[2]
threading.Thread(target=listen, daemon=True).start()
while not os.path.exists("/tmp/peers"):
    time.sleep(0.2)
with open("/tmp/peers") as file:
    peers = file.read().split()
# Each begins elsewhere in the row.
turn = peers.index(sys.argv[3]) if sys.argv[3] in peers else 0
told = 0.0
while True:
    turn += 1
    began = time.monotonic()
    call(peers[turn % len(peers)])
    if began - told >= 1:
        tell()
        told = began
    time.sleep(max(0.0, PERIOD - (time.monotonic() - began)))
