// mercurius with its JIT and an in-memory resolver: node mercurius.cjs PORT SCHEMA ANSWERS
const { readFileSync } = require("node:fs");
const fastify = require("fastify");
const mercurius = require("mercurius");

const [port, schema, answers] = process.argv.slice(2);
const known = JSON.parse(readFileSync(answers, "utf8"));
let next = 0;
const app = fastify();
app.register(mercurius, {
  schema: readFileSync(schema, "utf8"),
  resolvers: { Query: { banners: () => known[next++ % known.length] } },
  jit: 1,
  graphiql: false,
});
app.listen({ port: Number(port), host: "127.0.0.1" }).then(() => console.log("ready"));
