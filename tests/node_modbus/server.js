// modbus-serial's servers with the cells that tests/node_modbus_server.py asks for.
"use strict";

const fs = require("node:fs");
const { ServerSerial, ServerTCP } = require("modbus-serial");

const options = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const ILLEGAL_ADDRESS = 2;

// Cells by "unit area number".
const cells = new Map();
for (const [unitId, areas] of Object.entries(options.units)) {
  for (const [area, ranges] of Object.entries(areas)) {
    for (const [first, values] of Object.entries(ranges)) {
      values.forEach((value, i) => cells.set(`${unitId} ${area} ${Number(first) + i}`, value));
    }
  }
}

// It calls this for each cell of a request; where nothing is called back, nothing is answered.
function reader(area) {
  return (number, unitId, callback) => {
    if (!(unitId in options.units)) {
      return;
    }
    const value = cells.get(`${unitId} ${area} ${number}`);
    callback(value === undefined ? { modbusErrorCode: ILLEGAL_ADDRESS } : null, value);
  };
}

const vector = {
  getCoil: reader("coil"),
  getDiscreteInput: reader("discrete"),
  getHoldingRegister: reader("holding"),
  getInputRegister: reader("input"),
};

function failed(error) {
  console.error(error);
  process.exit(1);
}

const server =
  options.path === null
    ? new ServerTCP(vector, { host: "127.0.0.1", port: options.port })
    : new ServerSerial(vector, {
        path: options.path,
        baudRate: 19200,
        interval: options.silence_ms,
        openCallback: (error) => error && failed(error),
      });
server.on("serverError", failed);
server.on("initialized", () => console.log("serving"));
