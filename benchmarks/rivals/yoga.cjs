// graphql-yoga with an in-memory resolver: node yoga.cjs PORT SCHEMA ANSWERS
const { readFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { createSchema, createYoga } = require("graphql-yoga");

const [port, schema, answers] = process.argv.slice(2);
const known = JSON.parse(readFileSync(answers, "utf8"));
let next = 0;
const yoga = createYoga({
  schema: createSchema({
    typeDefs: readFileSync(schema, "utf8"),
    resolvers: { Query: { banners: () => known[next++ % known.length] } },
  }),
  graphiql: false,
  landingPage: false,
  logging: false,
});
createServer(yoga).listen(Number(port), "127.0.0.1", () => console.log("ready"));
