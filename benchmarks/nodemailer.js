// Sends one letter to every row of a CSV file through nodemailer's pool, as its documentation recommends for bulk:
// messages are handed over only while the pool is idle, so that neither side queues the whole list in memory.
//
// node nodemailer.js LIST.csv LETTER.txt LETTER.html PORT CONNECTIONS [enclose]
// With SMTP_USER, SMTP_PASSWORD and SMTP_CA (a file) in the environment: STARTTLS to localhost, and a login.
// The list is email,name,town without quotes.  Prints {"accepted": …, "failed": …}; only what a callback confirmed counts.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const nodemailer = require("nodemailer");

const [list, textFile, htmlFile, port, connections, enclose] = process.argv.slice(2);
const text = fs.readFileSync(textFile, "utf8");
const html = fs.readFileSync(htmlFile, "utf8");

const { SMTP_USER: user, SMTP_PASSWORD: pass, SMTP_CA: ca } = process.env;
const security = user
  ? { host: "localhost", requireTLS: true, tls: { ca: fs.readFileSync(ca) }, auth: { user, pass } }
  : { host: "127.0.0.1", ignoreTLS: true };

const transport = nodemailer.createTransport({
  pool: true,
  ...security,
  port: Number(port),
  secure: false,
  maxConnections: Number(connections),
  maxMessages: Infinity,
});

const fill = (template, name, town) => template.replaceAll("{{ name }}", name).replaceAll("{{ town }}", town);

async function main() {
  const rows = readline.createInterface({ input: fs.createReadStream(list, "utf8"), crlfDelay: Infinity });
  let accepted = 0;
  let failed = 0;
  let open = 0;
  let wake = () => {};
  const woken = () => new Promise((resolve) => (wake = resolve));
  transport.on("idle", () => wake());

  let isHeader = true;
  for await (const row of rows) {
    if (isHeader) {
      isHeader = false;
      continue;
    }
    while (!transport.isIdle()) await woken();
    const [email, name, town] = row.split(",");
    open += 1;
    transport.sendMail(
      {
        from: "Shop <shop@example.org>",
        to: { name, address: email },
        subject: `Hello ${name}`,
        text: fill(text, name, town),
        html: fill(html, name, town),
        attachments: enclose ? [{ path: "shared.pdf" }, { path: `own/${email.split("@")[0]}.pdf` }] : [],
      },
      (error) => {
        open -= 1;
        if (error) {
          failed += 1;
          if (failed === 1) console.error(String(error));
        } else accepted += 1;
        wake();
      },
    );
  }
  while (open > 0) await woken();
  transport.close();
  console.log(JSON.stringify({ accepted, failed }));
  process.exitCode = failed ? 1 : 0;
}

main();
