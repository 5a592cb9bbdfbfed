// node-opcua's server with the nodes, users and certificate that tests/opcua_server.py asks for.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const opcua = require("node-opcua");

const options = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const folder = path.dirname(path.resolve(process.argv[2]));
const NAMESPACE = "http://example.org/plc";

// A 64-bit number as its upper and its lower 32 bits.
function halves(value) {
  const bits = BigInt.asUintN(64, BigInt(value));
  return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
}

// A node keeps what was last written to it: value, status and source time stamp.
function addVariable(namespace, owner, name, [type, value]) {
  const dataType = opcua.DataType[type];
  const raw = type.endsWith("nt64") ? halves(value) : value;
  return namespace.addVariable({
    componentOf: owner,
    nodeId: `s=${name}`,
    browseName: name.split(".")[1],
    dataType: type,
    accessLevel: "CurrentRead | CurrentWrite",
    userAccessLevel: "CurrentRead | CurrentWrite",
    minimumSamplingInterval: 0,
    value: { dataType, arrayType: opcua.VariantArrayType.Scalar, value: raw },
  });
}

function addNodes(server) {
  const addressSpace = server.engine.addressSpace;
  const namespace = addressSpace.registerNamespace(NAMESPACE);
  const objects = addressSpace.rootFolder.objects;
  const owners = new Map();
  for (const [name, node] of Object.entries(options.nodes)) {
    const owner = name.split(".")[0];
    if (!owners.has(owner)) {
      const object = namespace.addObject({
        organizedBy: objects,
        nodeId: `s=${owner}`,
        browseName: owner,
      });
      object.addReference({ referenceType: "HasComponent", nodeId: objects.nodeId });
      owners.set(owner, object);
    }
    addVariable(namespace, owners.get(owner), name, node);
  }
  if (options.ticking) {
    addTicking(namespace, objects, options.ticking);
  }
  const control = namespace.addObject({
    organizedBy: objects,
    nodeId: "s=Control",
    browseName: "Control",
  });
  // Closes every session but the caller's, and leaves their sockets open.
  addMethod(namespace, control, "Forget", (context) => {
    for (const session of Object.values(server.engine._sessions)) {
      if (session !== context.session) {
        server.engine.closeSession(session.authenticationToken, true, "Forcing");
      }
    }
  });
  // Servers load parts of their address space later than they begin to listen.
  addMethod(namespace, control, "AddLate", () => {
    addVariable(namespace, control, "Control.Late", ["Double", 1.5]);
  });
}

// Nodes Tick.0 and so on, all set to the next whole number each interval.
function addTicking(namespace, objects, { count, type, intervalMs }) {
  const owner = namespace.addObject({ organizedBy: objects, nodeId: "s=Tick", browseName: "Tick" });
  const variables = [];
  for (let n = 0; n < count; n += 1) {
    variables.push(addVariable(namespace, owner, `Tick.${n}`, [type, 0]));
  }
  let tick = 0;
  setInterval(() => {
    tick += 1;
    for (const variable of variables) {
      variable.setValueFromSource({ dataType: opcua.DataType[type], value: tick });
    }
  }, intervalMs);
}

function addMethod(namespace, owner, name, work) {
  const method = namespace.addMethod(owner, {
    nodeId: `s=Control.${name}`,
    browseName: name,
    inputArguments: [],
    outputArguments: [],
  });
  method.bindMethod((_inputs, context, callback) => {
    work(context);
    callback(null, { statusCode: opcua.StatusCodes.Good, outputArguments: [] });
  });
}

async function main() {
  const manager = new opcua.OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: true,
    rootFolder: path.join(folder, "pki"),
  });
  await manager.initialize();
  const settings = {
    port: options.port,
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    serverCertificateManager: manager,
    userCertificateManager: manager,
    nodeset_filename: [opcua.nodesets.standard],
    serverCapabilities: {
      // With sampling interval 0 every change counts; by default it gathers those of 50 ms.
      minSupportedSampleRate: 0,
      // Smaller than what the tests need, so that they need several requests.
      operationLimits: options.ticking
        ? {}
        : { maxNodesPerRead: 6, maxMonitoredItemsPerCall: 3, maxNodesPerBrowse: 2 },
    },
    allowAnonymous: options.users === null,
    securityPolicies: [opcua.SecurityPolicy.None, opcua.SecurityPolicy.Basic256Sha256],
    securityModes: [
      opcua.MessageSecurityMode.None,
      opcua.MessageSecurityMode.Sign,
      opcua.MessageSecurityMode.SignAndEncrypt,
    ],
    userManager: {
      isValidUser: (name, password) => (options.users ?? {})[name] === password,
    },
  };
  if (options.identity !== null) {
    [settings.certificateFile, settings.privateKeyFile] = options.identity;
    settings.serverInfo = { applicationUri: "urn:server" };
  }
  const server = new opcua.OPCUAServer(settings);
  await server.initialize();
  addNodes(server);
  await server.start();
  console.log("serving");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
