// Runs a script for Google Apps Script with stand-ins for Google's services. Standard input has its text.

const assert = require("node:assert");
const fs = require("node:fs");
const vm = require("node:vm");

const rows = [];
const sheet = { appendRow: (row) => rows.push(row) };
const context = {
  SpreadsheetApp: { getActive: () => ({ getSheets: () => [sheet] }) },
  ContentService: { createTextOutput: (text) => ({ text }) },
};
vm.runInNewContext(fs.readFileSync(0, "utf8").replace('"…"', '"the-key"'), context);

const post = (body) => context.doPost({ postData: { contents: JSON.stringify(body) } });
const row = ["2026-05-21T08:03:00Z", '=IMPORTXML("https://evil.example", "//a")', "", "+1", "R&D"];
assert.deepStrictEqual(post({ key: "another", id: "1", row }), { text: "done" });
assert.deepStrictEqual(post({ id: "1", row }), { text: "done" });
assert.deepStrictEqual(rows, []);
post({ key: "the-key", id: "1", row });
// The list is one of another context.
assert.deepStrictEqual(rows.map((cells) => Array.from(cells)), [row.map((text) => `'${text}`)]);
