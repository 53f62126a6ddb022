// Reads requests to a collector (standard input: a JSON list of their bodies) by the published proto, as protobufjs knows it, and
// writes what they say: one JSON list of spans. Whatever the proto does not know, or does not allow, is an error.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const root = require("@opentelemetry/otlp-transformer/build/src/generated/root.js");
const Request = root.opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest;
const IDS = { traceId: 16, spanId: 8, parentSpanId: 8 };

// OTLP's JSON has ids in hexadecimal; proto3's has base64.
function withBytes(value, name) {
  if (name in IDS) {
    if (!new RegExp(`^[0-9a-f]{${2 * IDS[name]}}$`).test(value)) {
      throw new Error(`${name} is ${value}`);
    }
    return Buffer.from(value, "hex").toString("base64");
  }
  if (Array.isArray(value)) {
    return value.map((each) => withBytes(each));
  }
  return value !== null && typeof value === "object"
    ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withBytes(each, key)]))
    : value;
}

function leaves(value) {
  if (Array.isArray(value)) {
    return value.flatMap(leaves);
  }
  return value !== null && typeof value === "object" ? Object.entries(value).flatMap(([key, each]) => [key, ...leaves(each)]) : [];
}

let text = "";
for await (const piece of process.stdin) {
  text += piece;
}
const spans = [];
for (const body of JSON.parse(text)) {
  const asked = JSON.parse(body);
  const message = Request.decode(Request.encode(Request.fromObject(withBytes(asked))).finish());
  const said = Request.toObject(message, { longs: String, enums: Number, bytes: String });
  const unknown = leaves(asked).filter((name) => !leaves(said).includes(name));
  if (unknown.length > 0) {
    throw new Error(`the proto knows no ${unknown}`);
  }
  const value = (each) => each.stringValue ?? Number(each.intValue);
  const attributes = (list) => Object.fromEntries(list.map(({ key, value: each }) => [key, value(each)]));
  for (const { resource, scopeSpans } of said.resourceSpans) {
    for (const { scope, spans: list } of scopeSpans) {
      for (const span of list) {
        const hex = (base64) => Buffer.from(base64 ?? "", "base64").toString("hex");
        spans.push({
          resource: attributes(resource.attributes), scope: scope.name, name: span.name, kind: span.kind, trace: hex(span.traceId), id: hex(span.spanId),
          parent: hex(span.parentSpanId), begin: span.startTimeUnixNano, end: span.endTimeUnixNano, attributes: attributes(span.attributes ?? []),
          status: span.status?.code ?? 0,
        });
      }
    }
  }
}
console.log(JSON.stringify(spans));
