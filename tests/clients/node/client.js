// What an application does with @grpc/grpc-js and the Workload API's .proto file: there is no
// maintained SPIFFE library for Node. Told as one JSON object a line.
// usage: client.js workload.proto
"use strict";

const { X509Certificate, createPrivateKey } = require("node:crypto");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const AUDIENCE = "clients.test";

const definition = loader.loadSync(process.argv[2], { longs: Number });
const { SpiffeWorkloadAPI } = grpc.loadPackageDefinition(definition);
const api = new SpiffeWorkloadAPI(
  process.env.SPIFFE_ENDPOINT_SOCKET,
  grpc.credentials.createInsecure(),
  // Without it the pause between two tries to connect grows to two minutes.
  { "grpc.max_reconnect_backoff_ms": 2000 },
);

function header() {
  const metadata = new grpc.Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}

function tell(event, pairs) {
  console.log(JSON.stringify({ event, ...pairs }));
}

function fail(what, error) {
  tell("error", { what, text: String(error) });
}

// Certificates one after another in DER (RFC 5280), as the Workload API sends them.
function* certificates(der) {
  while (der.length > 0) {
    let length = der[1];
    let start = 2;
    if (length > 0x80) {
      start += length - 0x80;
      length = der.readUIntBE(2, length - 0x80);
    }
    yield new X509Certificate(der.subarray(0, start + length));
    der = der.subarray(start + length);
  }
}

const count = (der) => [...certificates(der)].length;

// A stream that is opened anew whenever it ends: grpc-js reconnects the channel, not the call.
async function follow(what, open, tellUpdate) {
  for (;;) {
    await new Promise((ended) => {
      const stream = open();
      stream.on("data", (message) => {
        try {
          tellUpdate(message);
        } catch (error) {
          fail(what, error);
        }
      });
      stream.on("error", (error) => fail(what, error));
      stream.on("close", ended);
    });
    await sleep(500);
  }
}

function tellSvids(message) {
  const [svid] = message.svids;
  const [leaf] = certificates(svid.x509Svid);
  const key = createPrivateKey({ key: svid.x509SvidKey, format: "der", type: "pkcs8" });
  if (!leaf.checkPrivateKey(key)) {
    throw new Error("the key is not the certificate's");
  }
  const roots = [...certificates(svid.bundle)];
  if (!roots.some((root) => leaf.checkIssued(root) && leaf.verify(root.publicKey))) {
    throw new Error("the bundle doesn't verify the certificate");
  }
  const id = leaf.subjectAltName.replace(/^URI:/, "");
  const serial = leaf.serialNumber.toLowerCase();
  tell("x509", { by: "stream", id, serial, roots: roots.length });
}

function tellX509Bundles(message) {
  for (const [domain, der] of Object.entries(message.bundles)) {
    tell("x509-bundle", { domain: domain.replace("spiffe://", ""), authorities: count(der) });
  }
}

function tellJwtBundles(message) {
  for (const [domain, set] of Object.entries(message.bundles)) {
    const kids = JSON.parse(set).keys.map((key) => key.kid);
    tell("jwt-bundle", { domain: domain.replace("spiffe://", ""), kids });
  }
}

// A unary call with a deadline.
function call(method, request) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + 2000 };
    api[method](request, header(), options, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
  });
}

// Fetches a token, has it validated, and for an audience that it is not for.
async function useJwt() {
  const { svids } = await call("FetchJWTSVID", { audience: [AUDIENCE] });
  const token = svids[0].svid;
  tell("jwt", { id: svids[0].spiffeId, token });
  const validated = await call("ValidateJWTSVID", { audience: AUDIENCE, svid: token });
  if (validated.claims.fields.sub.stringValue !== validated.spiffeId) {
    throw new Error("the claims are another's");
  }
  tell("validated", { by: "server", id: validated.spiffeId });
  try {
    await call("ValidateJWTSVID", { audience: "another.test", svid: token });
    tell("accepted", { audience: "another.test" });
  } catch (error) {
    const name = grpc.status[error.code].toLowerCase();
    tell("refused", { code: name.replace(/(?:^|_)([a-z])/g, (_, c) => c.toUpperCase()) });
  }
}

async function main() {
  follow("x509", () => api.FetchX509SVID({}, header()), tellSvids);
  follow("x509-bundle", () => api.FetchX509Bundles({}, header()), tellX509Bundles);
  follow("jwt-bundle", () => api.FetchJWTBundles({}, header()), tellJwtBundles);
  for (;;) {
    await useJwt().catch((error) => fail("jwt", error));
    await sleep(500);
  }
}

main();
