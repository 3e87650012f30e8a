// Messages a second of nodemailer's pooled transport: node nodemailer.cjs PORT MESSAGES CONNECTIONS
const nodemailer = require("nodemailer");

const [port, messages, connections] = process.argv.slice(2).map(Number);
const pool = nodemailer.createTransport({
  host: "127.0.0.1", port, pool: true, maxConnections: connections, maxMessages: Infinity, ignoreTLS: true,
});
const paragraph =
  '<p style="margin:0 0 16px;font-family:Georgia,serif;color:#222">Autumn has come to the garden, and with it the time ' +
  "to lift the dahlias, to plant garlic between the roses and to think about what the next summer should bring. We " +
  "have gathered what our readers asked for most: bulbs that flower in February, tools that outlive their owners, and " +
  "a calendar that says in one line a day what is worth doing before the frost.</p>\n";
const text = paragraph.replace(/<[^>]*>/g, "").repeat(20);

function mail(n) {
  const person = { name: "Ada", city: "Berlin", plan: "pro", points: n % 5000, favourite: "the green one" };
  return {
    from: "Garden <news@garden.example>",
    to: `c${n}@example.com`,
    subject: `${person.name}, the garden in autumn`,
    text: `Dear ${person.name} in ${person.city},\n${text}`,
    html:
      `<html><body><p>Dear ${person.name} in ${person.city},</p>\n` + paragraph.repeat(20) +
      `<p>Your plan is ${person.plan}, you have ${person.points} points, and we keep ${person.favourite}.</p></body></html>`,
  };
}

async function main() {
  const began = process.hrtime.bigint();
  let next = 0;
  const lane = async () => {
    while (next < messages) await pool.sendMail(mail(next++));
  };
  await Promise.all(Array.from({ length: connections }, lane));
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  pool.close();
  console.log(JSON.stringify({ per_s: messages / seconds }));
}

main();
