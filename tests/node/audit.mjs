// The audit suite of graphql-http against a server: a line for each check that is not ok, then how many were what.
import { createRequire } from "node:module";

// By require, which looks into NODE_PATH.
const { auditServer } = createRequire(import.meta.url)("graphql-http");
const [url, key] = process.argv.slice(2);
const withKey = (to, options = {}) =>
  fetch(to, { ...options, headers: { ...options.headers, authorization: `Bearer ${key}` } });
const found = { ok: 0, warn: 0, error: 0 };
for (const { id, name, status, reason } of await auditServer({ url, fetchFn: withKey })) {
  found[status] = (found[status] ?? 0) + 1;
  if (status !== "ok") console.log(`${status} ${id} ${name}: ${reason}`);
}
console.log(JSON.stringify(found));
