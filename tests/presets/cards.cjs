// Reads cards with the package adaptivecards, whose folder is the first argument. Fails if the package has a remark about one,
// or would write another card.

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");

// The bundle for browsers: the modules of the package need a bundler.
const bundle = path.join(process.argv[2], "dist", "adaptivecards.js");
const { AdaptiveCard, SerializationContext, Versions } = require(bundle);

for (const [name, json] of Object.entries(JSON.parse(fs.readFileSync(0, "utf8")))) {
  const card = new AdaptiveCard();
  const context = new SerializationContext(Versions.v1_4);
  card.parse(json, context);
  const remarks = Array.from({ length: context.eventCount }, (_, index) => context.getEventAt(index).message);
  const failures = card.validateProperties().validationEvents.map((event) => event.message);
  assert.deepStrictEqual([...remarks, ...failures], [], name);
  // Neither is part of the card's schema: Teams reads `msteams`, editors read `$schema`.
  const { msteams, $schema, ...written } = json;
  const { $schema: ignored, ...known } = card.toJSON();
  assert.deepStrictEqual(known, written, name);
}
