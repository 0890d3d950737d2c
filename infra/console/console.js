// The console's page. Texts from Tableau may be hostile: `element` alone makes nodes, and it makes text nodes only.

const SVG = "http://www.w3.org/2000/svg";
const HOURS = 24;
const PAGE_ROWS = 50;
const READ_ROWS = 200;
// As many as the console keeps.
const MAX_EVENTS = 500;
const MAX_FEED_ITEMS = 60;
const ANNOUNCE_EVERY_MS = 4000;
const RECONNECT_AFTER_MS = 3000;
const RECENT_MS = 30_000;
const DAY_MS = 86_400_000;
const WARN_DAYS = 30;
// Kinds of alerts after which the state of a site is another one.
const PROBLEMS = ["problem", "problem-solved"];
// An action that takes a second is repeated after four at the earliest, so that other pages are answered.
const PAUSE_FACTOR = 4;
const DISCONNECTED =
  "The console does not answer. The page shows old data. Fix: start the command that printed this address again, and open the address that it prints then.";

const $ = (id) => document.getElementById(id);

/** Makes a node. A name with the prefix `svg:` is of SVG, `on…` is a listener, and false or null leaves an attribute out. */
function element(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false && child !== ""));
  return node;
}

/** Puts nodes into a parent, and moves none that is in its place, so that the focus stays. */
function place(parent, nodes) {
  nodes.forEach((node, index) => parent.children[index] === node || parent.insertBefore(node, parent.children[index] ?? null));
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

/** Changes a part of the page. The control with the same key keeps the focus, and details stay open. */
function redraw(parent, ...nodes) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
  const open = new Set([...parent.querySelectorAll("details[open]")].map((node) => node.dataset.key));
  parent.replaceChildren(...nodes.flat(Infinity).filter(Boolean));
  for (const node of parent.querySelectorAll("[data-key]")) {
    if (node.dataset.key === focused) (node.querySelector("summary") ?? node).focus();
    if (open.has(node.dataset.key)) node.open = true;
  }
}

const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;
const name = (text) => element("bdi", {}, text);
const words = (kind) => kind.replaceAll("-", " ");
const isFailure = (event) => /Failed$|FailureExplained$/.test(event);
const tone = (event) => (isFailure(event) ? "bad" : /Succeeded$|Resolved$/.test(event) ? "good" : "plain");
const tag = (text, mood = "") => element("span", { class: `tag ${mood}` }, text);

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });

/** Shows a time in the reader's time zone, with UTC as its title. */
function time(text, format) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return element("span", {}, String(text));
  const isToday = at.toDateString() === new Date().toDateString();
  const utc = `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return element("time", { datetime: text, title: utc }, (format ?? (isToday ? clock : date)).format(at));
}

/** A link, if the address is one of the web. */
function link(label, url) {
  const isWeb = /^https?:\/\//i.test(url);
  return isWeb ? element("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, label) : element("span", {}, `${label}: ${url}`);
}

/** Text with code between backticks, as Amazon Q writes it. */
const marked = (text) => text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? element("code", {}, element("bdi", {}, part)) : part));

async function call(path, body) {
  const options = body && { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(path, options).catch(() => {
    throw new Error(DISCONNECTED);
  });
  // The address of a console that has ended.
  if (response.status === 404) throw new Error(DISCONNECTED);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The console answered ${response.status}. Nothing is shown. Fix: load the page again.`);
  return answer;
}

/** Carries out an action once at a time. Calls in the meantime share one more. */
function oneAtATime(action) {
  let [running, next] = [null, null];
  const start = () => (running = action().finally(() => (running = null)));
  return () => {
    if (!running) return start();
    next ??= running.catch(() => {}).then(() => {
      next = null;
      return start();
    });
    return next;
  };
}

// ---- Tabs

const TABS = ["tableau", "events", "sites"];

/** Makes a list of tabs follow the arrow keys. `show` selects a tab. */
function tabList(list, show) {
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) show(tab);
  });
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.querySelectorAll("[role=tab]:not([hidden])")];
    const at = tabs.indexOf(document.activeElement);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (next === undefined || at < 0) return;
    event.preventDefault();
    const tab = tabs.at(next % tabs.length);
    show(tab);
    tab.focus();
  });
}

function markSelected(list, tab) {
  for (const other of list.querySelectorAll("[role=tab]")) {
    other.setAttribute("aria-selected", other === tab);
    other.tabIndex = other === tab ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
}

let selected = null;

function showTab() {
  const wanted = location.hash.slice(1);
  const isThere = TABS.includes(wanted) && !$(`tab-${wanted}`).hidden;
  const tab = isThere ? wanted : $("tab-tableau").hidden ? "events" : "tableau";
  if (tab === selected) return;
  selected = tab;
  $("reading").hidden = true;
  markSelected($("tabs"), $(`tab-${tab}`));
  $("arriving").hidden = tab === "events";
  $("main").classList.toggle("beside", tab !== "events");
  document.title = `${$(`tab-${tab}`).textContent} · Tableau Fanout`;
  scrollTo(0, 0);
  if (tab === "events") readHistory();
}

tabList($("tabs"), (tab) => {
  location.hash = tab.id.slice(4);
});
addEventListener("hashchange", showTab);
$("skip").addEventListener("click", (event) => {
  // The hash belongs to the tabs.
  event.preventDefault();
  $("main").focus();
});

// ---- State

let state = null;
let stateText = "";
let stateError = null;
let liveError = null;
const reports = new Map();
const siteResults = new Map();

const readState = oneAtATime(async () => {
  try {
    const read = await call("state");
    stateError = null;
    const text = JSON.stringify(read);
    if (text !== stateText) {
      [state, stateText] = [read, text];
      drawState();
    }
  } catch (error) {
    stateError = error.message;
  }
  drawHealth();
  drawBanner();
});

function drawBanner() {
  const errors = [...new Set([stateError, liveError && `Events do not arrive on this page. ${liveError}`].filter(Boolean))];
  const text = errors.join("\n");
  if ($("banner").textContent !== text) $("banner").textContent = text;
  $("banner").hidden = !text;
}

function drawHealth() {
  const works = !stateError && state.ok && !state.problems.length;
  $("health").textContent = stateError ? "state not known" : works ? "works" : count(Math.max(state.problems.length, 1), "problem");
  $("health").className = `pill ${works ? "good" : "bad"}`;
}

/** Draws what the console knows before it reads the stack. */
async function drawStart() {
  try {
    const { name, is_local: isLocal, simulated } = await call("start");
    $("where").textContent = [name, isLocal && "local stack"].filter(Boolean).join(" · ");
    $("tab-tableau").hidden = !simulated;
    if (simulated) drawSimulated(simulated);
  } catch (error) {
    stateError = error.message;
    drawBanner();
  }
  showTab();
}

function drawState() {
  const { stack, is_local: isLocal, simulated } = state;
  const where = isLocal ? ["local stack"] : [`account ${stack.account}`, stack.region];
  $("where").textContent = [stack.name, ...where, `version ${stack.version}`].join(" · ");
  $("tab-tableau").hidden = !simulated;
  if (simulated) drawSimulated(simulated);
  showTab();
  drawProblems();
  drawRunTimes();
  drawSites();
  drawTargets();
  drawSubscribers();
  drawEmptyFeed();
}

/** Fills the selects of events. */
function drawSimulated({ events }) {
  for (const select of document.querySelectorAll("select[data-events]")) {
    if (select.options.length === events.length) continue;
    select.replaceChildren(...events.map((event) => element("option", { selected: event === select.dataset.events }, event)));
  }
}

function drawProblems() {
  const box = (mood, { what, fix }) =>
    element("div", { class: `box problem ${mood}` }, element("h3", {}, what), fix && element("p", {}, fix));
  const alarms = state.alarms.filter((alarm) => alarm.state === "ALARM");
  redraw(
    $("problems"),
    state.problems.map((problem) => box("", problem)),
    alarms.map(({ name, reason }) => box("", { what: `Alarm ${name}`, fix: reason })),
    state.warnings.map((warning) => box("warn", warning)),
  );
}

function drawRunTimes() {
  const { last_run: last, next_run: next } = state;
  const parts = last
    ? [
        "Last run: ",
        last.action,
        " at ",
        time(last.at),
        last.succeeded ? ", succeeded. " : `, failed${last.message ? `: ${last.message.replace(/\.$/, "")}` : ""}. `,
      ]
    : ["No run has ended yet. "];
  if (next)
    parts.push("Next run: ", next.schedule.replace(/^rate\((.*)\)$/, "every $1"), ...(next.at ? [", by ", time(next.at)] : []), ".");
  $("run-times").replaceChildren(...parts);
}

function daysUntil(text) {
  return Math.floor((new Date(text) - Date.now()) / DAY_MS);
}

/** The end of a site's token, with a warning when it is near. */
function tokenEnd(text) {
  if (!text) return ["not known"];
  const days = daysUntil(text);
  const left = days < 0 ? tag("expired", "bad") : days <= WARN_DAYS && tag(`in ${count(days, "day")}`, days <= 7 ? "bad" : "warn");
  return [time(text, day), " ", left];
}

function drawSites() {
  const none = element(
    "div",
    { class: "empty" },
    element("b", {}, "No site is declared"),
    "Add one: ",
    element("code", {}, "cargo infra add-site NAME"),
  );
  redraw($("site-list"), state.sites.length ? state.sites.map(siteBox) : none);
}

function siteBox(site) {
  const problems = Object.entries(site.problems);
  const outages = site.outages.map(({ event, from, until }) =>
    element("li", {}, event, ": down since ", time(from), until ? [" until ", time(until)] : ""),
  );
  if (!siteResults.has(site.name)) siteResults.set(site.name, element("div", { class: "results", role: "status" }));
  const button = (action, label) =>
    element(
      "button",
      {
        type: "button",
        "data-run": action,
        "data-site": site.name,
        "data-key": `${action} ${site.name}`,
        "aria-label": `${label} ${site.name}`,
      },
      label,
    );
  return element(
    "section",
    { class: "box", "aria-label": `Site ${site.name}` },
    element(
      "div",
      { class: "spread" },
      element("h2", {}, name(site.name)),
      problems.length
        ? tag(count(problems.length, "problem"), "bad")
        : outages.length
          ? tag("webhooks down", "warn")
          : tag("no problem", "good"),
    ),
    element(
      "dl",
      { class: "facts" },
      problems.length > 0 && [
        element("dt", {}, "Problems"),
        element(
          "dd",
          {},
          element(
            "ul",
            {},
            problems.map(([kind, since]) => element("li", {}, words(kind), " since ", time(since))),
          ),
        ),
      ],
      outages.length > 0 && [element("dt", {}, "Outages"), element("dd", {}, element("ul", {}, outages))],
      element("dt", {}, "Token ends"),
      element("dd", {}, tokenEnd(site.token_ends)),
    ),
    registrations(reports.get(site.name)),
    element("p", { class: "actions" }, button("plan", "Plan"), button("apply", "Apply"), button("test", "Test")),
    siteResults.get(site.name),
  );
}

/** The webhooks of a site with their state, from its last report. */
function registrations(report) {
  if (!report) return element("p", { class: "muted" }, "Choose Plan to see each webhook and its state.");
  const { action, site } = report;
  const label = (planned, done) => (action === "plan" ? planned : done);
  const lists = [
    ["created", label("to create", "created"), "good"],
    ["enabled", label("to enable", "enabled"), "warn"],
    ["updated", label("to update", "updated"), "warn"],
    ["deleted", label("to delete", "deleted"), "warn"],
    ["surplus", label("to delete", "deleted"), "warn"],
    ["unchanged", "unchanged", ""],
    ["foreign", "foreign", ""],
  ];
  const rows = lists.flatMap(([member, label, mood]) => (site[member] ?? []).map((it) => [it.name ?? it, label, mood]));
  if (!rows.length) return element("p", { class: "muted" }, "The last report names no webhook.");
  const unchanged = (site.unchanged ?? []).length;
  const row = ([webhook, label, mood]) => element("li", {}, name(webhook), tag(label, mood));
  const list = (rows) => element("ul", { class: "hooks" }, rows.map(row));
  return element(
    "div",
    { class: "webhooks" },
    element("h3", {}, "Webhooks in the last report"),
    list(rows.filter(([, label]) => label !== "unchanged")),
    unchanged > 0 &&
      element(
        "details",
        { "data-key": `unchanged ${site.site}` },
        element("summary", {}, `${unchanged} unchanged`),
        list(rows.filter(([, label]) => label === "unchanged")),
      ),
  );
}

function table(caption, heads, rows) {
  return element(
    "div",
    { class: "box" },
    element("h2", {}, caption),
    element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      element(
        "table",
        { class: "plain" },
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            heads.map((head) => element("th", { scope: "col" }, head)),
          ),
        ),
        element(
          "tbody",
          {},
          rows.map((cells) =>
            element(
              "tr",
              {},
              cells.map((cell) => element("td", {}, cell)),
            ),
          ),
        ),
      ),
    ),
  );
}

function drawTargets() {
  const rows = state.targets.map((target) => [
    name(target.name),
    target.preset,
    target.gets,
    String(target.waiting),
    target.dead_letters ? tag(String(target.dead_letters), "bad") : "0",
    [
      target.problem,
      target.last_error && [time(target.last_error.at), ` ${target.last_error.error}`],
      !target.stored && "The entry is not stored.",
    ]
      .filter(Boolean)
      .map((text) => element("div", {}, text)),
  ]);
  const none = element(
    "div",
    { class: "empty" },
    element("b", {}, "No target gets events outside of AWS"),
    "Add one: ",
    element("code", {}, "cargo infra add-target NAME"),
  );
  redraw($("targets"), rows.length ? table("Targets", ["Name", "Preset", "Gets", "Waiting", "Dead letters", "Last error"], rows) : none);
}

function drawSubscribers() {
  const rows = Object.entries(state.subscribers).flatMap(([topic, subscribers]) =>
    subscribers.map((subscriber) => [
      topic,
      subscriber.protocol,
      name(subscriber.endpoint),
      subscriber.filter
        ? element("code", {}, typeof subscriber.filter === "string" ? subscriber.filter : JSON.stringify(subscriber.filter))
        : "all",
      subscriber.confirmed ? "confirmed" : tag("not confirmed", "warn"),
    ]),
  );
  redraw($("subscribers"), rows.length > 0 && table("Subscribers", ["Topic", "Protocol", "Endpoint", "Filter", "State"], rows));
}

// ---- Actions

const line = ({ tone = "plain", text }) => element("p", { class: `line ${tone}` }, text);
const failed = (error) => element("div", { class: "error" }, error.message);

/** Marks a button while an action of it is carried out, and shows its results or its error. */
async function act(button, results, action) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-busy", "true");
  button.setAttribute("aria-disabled", "true");
  try {
    results.replaceChildren(...(await action()));
  } catch (error) {
    results.replaceChildren(failed(error));
  }
  button.removeAttribute("aria-busy");
  button.removeAttribute("aria-disabled");
  await readState();
  if (selected === "events" || state?.is_local) await readHistory();
}

const runButtons = () => document.querySelectorAll("[data-run], #rotate");

/** Runs the reconciler. One run is carried out at a time. */
function run(button, action, site, results) {
  return act(button, results, async () => {
    for (const other of runButtons()) other.setAttribute("aria-disabled", "true");
    const label = { plan: "Plan", apply: "Apply", test: "Test", rotate: "Rotation" }[action];
    results.replaceChildren(line({ text: "The reconciler runs. It takes seconds to minutes." }));
    try {
      const report = await call("run", { action, site });
      for (const part of report.sites ?? []) if (part.unchanged) reports.set(part.site, { action, site: part });
      drawSites();
      const outcome = report.failure
        ? { tone: "bad", text: `${label} failed: ${words(report.failure)}.` }
        : { tone: "good", text: `${label} succeeded.` };
      return [
        line(outcome),
        element("pre", { class: "report", tabindex: "0", role: "region", "aria-label": `Report of ${action}` }, report.text),
      ];
    } finally {
      for (const other of runButtons()) other.removeAttribute("aria-disabled");
    }
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-run]");
  if (!button) return;
  const { run: action, site = null } = button.dataset;
  if (action === "rotate") {
    $("rotation").close();
    run($("rotate"), action, null, $("runs").querySelector(".results"));
  } else {
    run(button, action, site, site ? siteResults.get(site) : button.closest("form, .box").querySelector(".results"));
  }
});
$("rotate").addEventListener("click", () => $("rotate").getAttribute("aria-disabled") === "true" || $("rotation").showModal());
$("rotation-no").addEventListener("click", () => $("rotation").close());

for (const form of document.querySelectorAll("form[data-simulate]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(form, event.submitter));
    if (event.submitter.dataset.days) body.days = Number(event.submitter.dataset.days);
    if (body.reason === "own") body.reason = body.own;
    delete body.own;
    if (body.action !== "fail-refresh") delete body.reason;
    if (["disable", "delete"].includes(body.action)) delete body.name;
    act(event.submitter, form.querySelector(".results"), async () => {
      const { lines } = await call("simulate", body);
      if (body.action.endsWith("-refresh")) $("hint").hidden = body.action !== "fail-refresh";
      return lines.map(line);
    });
  });
}
$("fail").addEventListener("change", () => {
  const isOwn = $("own-choice").checked;
  $("own").hidden = !isOwn;
  $("own").querySelector("input").required = isOwn;
});
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());

// ---- Arrivals

const events = new Map();
let lastNumber = 0;
const items = new Map();
let waiting = [];
let isPaused = false;
let announcements = [];
let announceTimer = null;

function connect() {
  const source = new EventSource("stream");
  // A browser allows few connections to one server, so a page that is hidden leaves its own.
  const leave = () => {
    if (!document.hidden) return;
    source.close();
    document.removeEventListener("visibilitychange", leave);
    document.addEventListener("visibilitychange", connect, { once: true });
  };
  document.addEventListener("visibilitychange", leave);
  source.addEventListener("open", () => showLive(null));
  source.addEventListener("live", (message) => showLive(JSON.parse(message.data).error));
  source.addEventListener("arrival", (message) => arrive(JSON.parse(message.data)));
  source.addEventListener("error", () => {
    showLive("The connection to the console ended. The page connects again.");
    if (source.readyState !== EventSource.CLOSED) return;
    document.removeEventListener("visibilitychange", leave);
    setTimeout(connect, RECONNECT_AFTER_MS);
  });
}

function showLive(error) {
  liveError = error;
  $("live").textContent = error ? "not live" : "live";
  $("live").className = `pill ${error ? "bad" : "good"}`;
  $("live").title = error ?? "";
  drawBanner();
}

function arrive(arrival) {
  // After a connection that ended, the console sends some again.
  if (arrival.number <= lastNumber) return;
  lastNumber = arrival.number;
  if (arrival.kind === "event") {
    events.set(arrival.event.event_id, arrival);
    if (events.size > MAX_EVENTS) events.delete(events.keys().next().value);
  }
  if (isPaused) waiting = [...waiting, arrival].slice(-MAX_FEED_ITEMS);
  else draw(arrival);
  drawPause();
  if (Date.now() - new Date(arrival.at) < RECENT_MS) {
    announce(arrival);
    if (PROBLEMS.includes(arrival.alert?.kind)) readState();
  }
  if (selected === "events") scheduleRows();
  followDetail(arrival);
}

function announce({ kind, event, alert, target }) {
  const sentence = {
    event: () => `${event.event}: ${event.resource_name || "no name"}, site ${event.site}.`,
    alert: () => `Alert: ${alert.title}.`,
    target: () => `Message for the target ${target.target}.`,
  }[kind];
  if (!sentence) return;
  announcements.push(sentence());
  announceTimer ??= setTimeout(() => {
    const newest = announcements.at(-1);
    $("announcer").textContent = announcements.length === 1 ? newest : `${announcements.length} arrivals. The newest: ${newest}`;
    [announcements, announceTimer] = [[], null];
  }, ANNOUNCE_EVERY_MS);
}

/** Draws an arrival into the feed. An alert stands below its event. */
function draw(arrival) {
  const id = arrival.event?.event_id ?? arrival.alert?.event_id ?? `arrival ${arrival.number}`;
  let item = items.get(id);
  if (!item) {
    item = { node: element("li", { class: "item" }), event: null, alerts: [], other: null };
    items.set(id, item);
    // Messages may arrive in another order than that in which they were published.
    item.node.dataset.at = Date.parse(arrival.at);
    const later = [...$("feed").children].find((node) => node.dataset.at <= item.node.dataset.at);
    $("feed").insertBefore(item.node, later ?? null);
  }
  // SNS may send a message twice.
  const isKnown = item.alerts.some((alert) => alert.title === arrival.alert?.title && alert.text === arrival.alert?.text);
  if (arrival.kind === "event") item.event = arrival;
  else if (arrival.kind !== "alert") item.other = arrival;
  else if (!isKnown) item.alerts.push(arrival.alert);
  redraw(
    item.node,
    item.event && eventLine(item.event, item.alerts.length > 0),
    item.alerts.map(alertCard),
    item.other && otherLine(item.other),
  );
  while (items.size > MAX_FEED_ITEMS) {
    const [oldest, { node }] = items.entries().next().value;
    node.remove();
    items.delete(oldest);
  }
  $("arriving-empty").hidden = true;
}

/** The line of an event. Its alert, if there is one, has the findings. */
function eventLine({ at, event }, hasAlert) {
  return element(
    "button",
    { type: "button", class: `event ${event.tone}`, "data-key": event.event_id, onclick: () => openDetail(event.event_id) },
    element("span", { class: "mark" }),
    element("b", {}, event.event),
    element("small", {}, time(at)),
    element(
      "span",
      { class: "rest" },
      event.resource_name && [name(event.resource_name), " · "],
      name(event.site),
      event.recovered && " · recovered",
      !hasAlert && findingsOf(event, false),
    ),
  );
}

/** A message for a target, or one that is neither an event nor an alert. */
function otherLine({ at, target, other }) {
  const title = target ? ["To the target ", element("b", {}, name(target.target))] : ["Another message"];
  return element(
    "div",
    { class: "to-target" },
    element("p", {}, title, " ", time(at)),
    element("p", { class: "text" }, name(target?.text ?? String(other))),
  );
}

/** The findings of an event, with a link to its page where a link has a place. */
function findingsOf(event, hasLinks) {
  const findings = (event?.findings ?? "").replace(/^[\s:]+/, "");
  return [
    findings && element("span", { class: "finding" }, name(findings)),
    hasLinks && event?.resource_url && element("span", { class: "finding" }, link("Open in Tableau", event.resource_url)),
  ];
}

/** Draws an alert as chat services do. */
function alertCard(alert) {
  const mood = alert.resolved ? "resolved" : `${alert.severity}-level`;
  const { resource } = alert;
  const sites = alert.site ? [alert.site] : (alert.sites ?? []);
  return element(
    "article",
    { class: `alert ${mood}` },
    element("h3", {}, name(alert.title)),
    element("p", {}, alert.text),
    (alert.next_steps ?? []).length > 0 &&
      element(
        "ul",
        { class: "steps" },
        alert.next_steps.map((step) => element("li", {}, step)),
      ),
    (alert.links ?? []).length > 0 &&
      element(
        "p",
        { class: "links" },
        alert.links.map(({ label, url }) => link(label, url)),
      ),
    element(
      "p",
      { class: "foot" },
      sites.map((site) => element("span", {}, "Site ", name(site))),
      resource?.project && element("span", {}, "Project ", name(resource.project)),
      element("span", {}, words(alert.kind)),
    ),
  );
}

function drawPause() {
  $("pause").textContent = isPaused ? `Resume${waiting.length ? ` (${waiting.length} waiting)` : ""}` : "Pause";
  $("pause").setAttribute("aria-pressed", isPaused);
}

function drawEmptyFeed() {
  $("arriving-empty").hidden = items.size > 0;
  const todo = state?.simulated
    ? "Let a refresh fail: its event and alert appear here."
    : "Events and alerts appear here as they arrive. To cause one, choose Test under Sites.";
  $("arriving-empty").replaceChildren(element("b", {}, "Nothing has arrived yet"), todo);
}

$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  if (!isPaused) {
    waiting.forEach(draw);
    waiting = [];
  }
  drawPause();
});

// ---- Events

let logs = null;
let limit = READ_ROWS;
let shown = PAGE_ROWS;
let rowsTimer = null;
const rows = new Map();
const filters = $("filters");

const OUTCOMES = new Map(
  Object.entries({
    published: ["", "SNS accepted it, and the subscribers of the events topic have it."],
    recovered: ["good", "Tableau did not deliver it. The reconciler published it from Tableau’s job."],
    duplicate: ["", "Tableau sent it again after it was published. It was not published twice."],
    undelivered: ["bad", "SNS did not accept it. Nobody has it yet. The log keeps it for a replay."],
    "too-large": ["bad", "It is larger than SNS accepts, and was not published."],
    unverified: ["warn", "The receiver had no signing key to verify it. It was not published. A replay verifies it."],
  }),
);

const NOT_PUBLISHED = ["undelivered", "unverified"];

const keyOf = (record) => record.event_id ?? `${record.at} ${record.site} ${record.event}`;

function recordOf({ at, event }) {
  const { site, event: type, event_id, resource_id, resource_name, recovered } = event;
  return {
    at,
    site,
    event: type,
    event_id,
    resource_id,
    resource_name,
    outcome: recovered ? "recovered" : "published",
    alert: null,
    error: null,
    latency_ms: null,
    delay_s: null,
  };
}

/** The events of the logs and of this page's time, newest first. An arrival outweighs a log line that does not know of it. */
function merged() {
  const since = Date.now() - HOURS * 3_600_000;
  const recent = [...events.values()].filter(({ at }) => new Date(at) > since);
  const all = new Map(recent.map((arrival) => [arrival.event.event_id, recordOf(arrival)]));
  for (const record of logs?.events ?? []) {
    const isOlder = NOT_PUBLISHED.includes(record.outcome) && all.get(record.event_id)?.at > record.at;
    if (!isOlder) all.set(keyOf(record), record);
  }
  return [...all.values()].sort((a, b) => new Date(b.at) - new Date(a.at));
}

const readHistory = oneAtATime(async () => {
  $("reload").setAttribute("aria-busy", "true");
  try {
    logs = await call(`events?limit=${limit}`);
    $("events-error").hidden = true;
  } catch (error) {
    $("events-error").textContent = error.message;
    $("events-error").hidden = false;
  }
  $("reload").removeAttribute("aria-busy");
  if (logs) drawPlot();
  if (logs)
    place(
      $("events-notes"),
      logs.notes.map((note) => element("li", {}, note)),
    );
  drawRows();
});

function scheduleRows() {
  rowsTimer ??= requestAnimationFrame(() => {
    rowsTimer = null;
    drawRows();
  });
}

function matches(record, { search, site, event, outcome }) {
  const text = [record.resource_name, record.resource_id, record.event_id, record.error, record.event, record.job]
    .filter(Boolean)
    .join("\n")
    .toLowerCase();
  return (
    (!site || record.site === site) &&
    (!event || record.event === event) &&
    (!outcome || record.outcome === outcome) &&
    text.includes(search.trim().toLowerCase())
  );
}

/** Adds the values that records have to a filter. */
function addOptions(select, values) {
  const known = new Set([...select.options].map((option) => option.value));
  const added = [...new Set(values)].filter((value) => !known.has(value)).sort();
  select.append(...added.map((value) => element("option", { value }, value)));
}

function drawRows() {
  const all = merged();
  for (const member of ["site", "event", "outcome"])
    addOptions(
      filters.elements[member],
      all.map((record) => record[member]),
    );
  const wanted = Object.fromEntries(new FormData(filters));
  const found = all.filter((record) => matches(record, wanted));
  place($("event-list").tBodies[0], found.slice(0, shown).map(row));
  const total = Math.max(logs?.total ?? 0, all.length);
  const hasFilter = Object.values(wanted).some(Boolean);
  $("events-count").textContent = hasFilter
    ? `${count(found.length, "event")} of ${all.length.toLocaleString()} match.`
    : `${count(total, "event")} in 24 hours.`;
  $("more").hidden = found.length <= shown && (logs?.events.length ?? 0) >= (logs?.total ?? 0);
  $("event-list").hidden = !found.length;
  $("events-empty").hidden = found.length > 0;
  const read = logs?.events.length ?? 0;
  const isPart = read < (logs?.total ?? 0);
  const [title, todo] = hasFilter
    ? [
        isPart ? `No event among the newest ${read.toLocaleString()} of ${total.toLocaleString()} matches` : "No event matches",
        isPart ? "Show more reads the next ones." : "Clear the search and the filters to see all events.",
      ]
    : ["No event in 24 hours", state?.simulated ? "Let a refresh fail under Tableau." : "To cause one, choose Test under Sites."];
  $("events-empty").replaceChildren(element("b", {}, title), todo);
}

function latency({ latency_ms: ms, delay_s: delay }) {
  if (ms != null) return `${ms.toLocaleString()} ms`;
  return delay != null ? element("span", { title: "From the job’s end to its event" }, `${Math.round(delay).toLocaleString()} s`) : "";
}

function outcomeCell({ outcome, alert }) {
  const alertText = { sent: "alert sent", duplicate: "alert sent before", failed: "alert failed" }[alert];
  return [
    tag(words(outcome), OUTCOMES.get(outcome)?.[0]),
    alertText && element("small", { class: alert === "failed" ? "bad" : "" }, ` ${alertText}`),
  ];
}

/** The row of a record. It is made again only when the record changes. */
function row(record) {
  const [key, text] = [keyOf(record), JSON.stringify(record)];
  if (rows.get(key)?.text === text) return rows.get(key).node;
  const node =
    rows.get(key)?.node ??
    element("tr", {
      role: "row",
      onclick: () => {
        node.querySelector("button")?.focus();
        openDetail(key);
      },
    });
  redraw(
    node,
    [
      ["time", time(record.at)],
      ["site", name(record.site)],
      ["what", element("button", { type: "button", class: `open ${tone(record.event)}`, "data-key": key }, record.event)],
      ["resource", record.resource_name ? name(record.resource_name) : record.resource_id],
      ["outcome", outcomeCell(record)],
      ["number", latency(record)],
    ].map(([column, cell]) => element("td", { class: column, role: "cell" }, cell)),
  );
  rows.set(key, { node, text });
  return node;
}

filters.addEventListener("input", () => {
  shown = PAGE_ROWS;
  drawRows();
  $("announcer").textContent = $("events-count").textContent;
});
$("reload").addEventListener("click", readHistory);
$("more").addEventListener("click", async () => {
  shown += PAGE_ROWS;
  if (shown > logs.events.length && logs.events.length < logs.total) {
    limit += READ_ROWS;
    await readHistory();
  }
  drawRows();
});

// ---- Plot

const PLOT = { height: 152, left: 30, right: 52, top: 8, bottom: 20 };

/** The next number with one digit, for the end of a scale. */
function roundUp(number) {
  const step = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
  return [1, 2, 4, 6, 8, 10].map((digit) => digit * step).find((end) => end >= number);
}

function drawPlot() {
  const bins = logs.plot;
  const [sum, failures] = ["events", "failures"].map((member) => bins.reduce((total, bin) => total + bin[member], 0));
  const latencies = bins
    .map((bin) => bin.latency_ms)
    .filter((ms) => ms != null)
    .sort((a, b) => a - b);
  const median = latencies.length ? `${latencies[latencies.length >> 1]} ms` : "none";
  $("sum-events").textContent = sum.toLocaleString();
  $("sum-failures").textContent = failures.toLocaleString();
  $("sum-latency").textContent = median;
  const width = $("plot").clientWidth;
  if (!width) return;
  const { height, left, right, top, bottom } = PLOT;
  const [inner, floor] = [width - left - right, height - bottom];
  const [mostEvents, mostMs] = [roundUp(Math.max(...bins.map((bin) => bin.events), 4)), roundUp(Math.max(...latencies, 10))];
  const x = (index) => left + (index * inner) / bins.length;
  const y = (value, most) => floor - (value / most) * (floor - top);
  const step = inner / bins.length;
  const text = (x, y, anchor, content) => element("svg:text", { class: "scale", x, y, "text-anchor": anchor }, content);
  const scale = [0, mostEvents / 2, mostEvents].map((value) => [
    element("svg:line", { class: "axis", x1: left, x2: width - right, y1: y(value, mostEvents), y2: y(value, mostEvents) }),
    text(left - 8, y(value, mostEvents) + 4, "end", String(value)),
  ]);
  const hours = fullHours(bins, inner < 500 ? 6 : 3).map(([at, index]) => text(x(index), height - 4, "middle", minutes.format(at)));
  const bars = bins.map((bin, index) => bar(bin, x(index), step, (value) => y(value, mostEvents), floor));
  const described = `Events in the last 24 hours, in half hours: ${count(sum, "event")}, ${count(failures, "failure")}, median latency ${median}.`;
  $("plot").replaceChildren(
    element(
      "svg:svg",
      { role: "img", "aria-label": described, viewBox: `0 0 ${width} ${height}` },
      element(
        "svg:defs",
        {},
        element(
          "svg:pattern",
          { id: "failures", width: 5, height: 5, patternUnits: "userSpaceOnUse" },
          element("svg:rect", { class: "bar-failed", width: 5, height: 5 }),
          element("svg:path", { class: "stripes", d: "M-1 1L1 -1M0 5L5 0M4 6L6 4" }),
        ),
      ),
      scale,
      text(width - right + 8, y(mostMs, mostMs) + 4, "start", `${mostMs} ms`),
      text(width - right + 8, floor + 4, "start", "0 ms"),
      hours,
      bars,
      latencyLine(
        bins,
        (index) => x(index) + step / 2,
        (ms) => y(ms, mostMs),
      ),
    ),
  );
  drawPlotTable(bins);
}

/** The hours of the day that a number divides, with their places among the bins. */
function fullHours(bins, every) {
  const [start, length] = [new Date(bins[0].at).getTime(), new Date(bins[1].at) - new Date(bins[0].at)];
  const hour = new Date(start);
  hour.setMinutes(0, 0, 0);
  const hours = Array.from({ length: HOURS + 1 }, (_, index) => new Date(hour.getTime() + index * 3_600_000));
  return hours
    .filter((at) => at.getHours() % every === 0)
    .map((at) => [at, (at - start) / length])
    .filter(([, index]) => index >= 1 && index < bins.length);
}

function bar({ at, events, failures, latency_ms: ms }, x, step, y, floor) {
  const [inset, width] = [step * 0.14, Math.max(step * 0.72, 1)];
  const box = (kind, value, extra) =>
    value > 0 &&
    element("svg:rect", { class: kind, x: x + inset, y: y(value), width, height: floor - y(value), rx: Math.min(width / 3, 2), ...extra });
  const text = `${minutes.format(new Date(at))}: ${count(events, "event")}, ${count(failures, "failure")}${ms == null ? "" : `, ${ms} ms`}`;
  return [
    box("bar", events),
    box("", failures, { fill: "url(#failures)" }),
    element("svg:rect", { class: "hit", x, y: 0, width: step, height: floor }, element("svg:title", {}, text)),
  ];
}

/** Lines between neighbours with a latency, and a dot for each bin. */
function latencyLine(bins, x, y) {
  const points = bins.map((bin, index) => bin.latency_ms != null && [x(index), y(bin.latency_ms)]);
  const path = points
    .map((point, index) => point && `${points[index - 1] ? "L" : "M"}${point[0]} ${point[1]}`)
    .filter(Boolean)
    .join("");
  return [
    path && element("svg:path", { class: "latency", d: path }),
    points.map((point) => point && element("svg:circle", { class: "dot", cx: point[0], cy: point[1], r: 1.8 })),
  ];
}

function drawPlotTable(bins) {
  const head = ["From", "Events", "Failures", "Latency"].map((text) => element("th", { scope: "col" }, text));
  const cells = (bin) => [time(bin.at), bin.events, bin.failures, bin.latency_ms == null ? "none" : `${bin.latency_ms} ms`];
  $("plot-table").replaceChildren(
    element("caption", {}, "Events of the last 24 hours in half hours"),
    element("thead", {}, element("tr", {}, head)),
    element(
      "tbody",
      {},
      bins.map((bin) =>
        element(
          "tr",
          {},
          cells(bin).map((cell) => element("td", {}, cell instanceof Node ? cell : String(cell))),
        ),
      ),
    ),
  );
}

let plotWidth = 0;
new ResizeObserver(
  ([
    {
      contentRect: { width },
    },
  ]) => {
    if (Math.abs(width - plotWidth) < 1) return;
    plotWidth = width;
    if (logs) drawPlot();
  },
).observe($("plot"));

// ---- Detail

const detail = $("detail");
let openId = null;
let openStory = null;

function openDetail(id) {
  openId = id;
  openStory = null;
  const record = merged().find((it) => keyOf(it) === id);
  $("detail-title").textContent = record?.event ?? "Event";
  $("detail-body").replaceChildren(...(record ? [summary(record)] : []), element("p", { class: "muted" }, "Reading the logs…"));
  if (!detail.open) detail.showModal();
  detail.scrollTop = 0;
  $("detail-title").focus();
  readDetail();
}

const readDetail = oneAtATime(async () => {
  const id = openId;
  try {
    const story = await call(`events/${encodeURIComponent(id)}`);
    if (id !== openId || JSON.stringify(story) === JSON.stringify(openStory)) return;
    openStory = story;
    redraw($("detail-body"), storyNodes({ ...EMPTY_STORY, ...story }));
  } catch (error) {
    if (id !== openId) return;
    redraw($("detail-body"), failed(error), events.has(id) && storyNodes({ ...EMPTY_STORY, live: events.get(id) }));
  }
});

/** A story with every member: the console leaves those of the logs out when they do not have the event yet. */
const EMPTY_STORY = {
  record: null,
  live: null,
  undelivered: null,
  alerts: [],
  failure: null,
  explanation: null,
  resolution: null,
  targets: [],
  replay: null,
  notes: [],
};

function followDetail({ event, alert }) {
  const resource = openStory?.record?.resource_id ?? openStory?.live?.event.resource_id;
  const concerns =
    event?.event_id === openId ||
    alert?.event_id === openId ||
    (resource && (event?.resource_id === resource || alert?.resource?.id === resource));
  if (detail.open && concerns) readDetail();
}

function storyNodes(story) {
  const { live, undelivered, targets, notes } = story;
  const record = story.record ?? (live && recordOf(live));
  const texts = live?.event.alert ?? undelivered?.alert;
  const envelope = live?.event.envelope ?? undelivered?.envelope;
  const attributes = live?.event.attributes ?? undelivered?.attributes;
  const alerts = story.alerts.map((arrival) => arrival.alert ?? arrival);
  if (record) $("detail-title").textContent = record.event;
  return [
    record && summary(record, live),
    story.replay && replayPart(story.replay),
    (texts || alerts.length > 0) && alertPart(texts, alerts),
    record && storyPart(record, story),
    targets.length > 0 && targetsPart(targets),
    envelope && jsonPart("Envelope", envelope),
    attributes && jsonPart("Attributes", attributes),
    notes.length > 0 &&
      element(
        "ul",
        { class: "notes" },
        notes.map((note) => element("li", {}, note)),
      ),
  ];
}

const part = (title, ...children) => element("section", {}, element("h3", {}, title), children);

const VERBS = new Map(
  Object.entries({
    RefreshFailed: ["The extract refresh of the", "failed"],
    RefreshStarted: ["The extract refresh of the", "started"],
    RefreshSucceeded: ["The extract refresh of the", "succeeded"],
    Created: ["The", "was created"],
    Deleted: ["The", "was deleted"],
    Updated: ["The", "was updated"],
    Promoted: ["The user", "became an administrator"],
    Demoted: ["The user", "is no longer an administrator"],
    RefreshFailureExplained: ["Tableau gave its reason for the failed refresh of the", ""],
    RefreshFailureResolved: ["The extract refresh of the", "works again"],
  }),
);

/** The event in words, as far as its name is known. */
function sentence({ event, resource_name, resource_id, site }, live) {
  const [, type, verb] = event.match(/^(Workbook|Datasource|View|User|Label|Site|Admin|)([A-Z]\w+)$/) ?? [];
  const [subject, end] = VERBS.get(verb) ?? [];
  const resource = element("b", {}, name(resource_name || resource_id || "without a name"));
  const where = [" on the site ", element("b", {}, name(site)), "."];
  if (!subject) return [event, ": ", resource, where];
  const kind = type === "Admin" ? "" : (type || (live?.event.attributes?.resource_type ?? "resource")).toLowerCase();
  return [subject, kind && ` ${kind}`, " ", resource, end && ` ${end}`, where];
}

/** The event in one sentence, its outcome and its times. */
function summary(record, live) {
  const facts = [
    ["Outcome", [tag(words(record.outcome), OUTCOMES.get(record.outcome)?.[0]), " ", OUTCOMES.get(record.outcome)?.[1]]],
    ["Time", [time(record.at, date), ` (${record.at})`]],
    ["Latency", record.latency_ms != null && `${record.latency_ms.toLocaleString()} ms`],
    ["Delay", record.delay_s != null && `${Math.round(record.delay_s).toLocaleString()} s after the job’s end`],
    ["Attempts", record.attempts > 1 && String(record.attempts)],
    ["Alert", record.alert && { sent: "sent", duplicate: "sent before", failed: tag("failed", "bad") }[record.alert]],
    ["Error", record.error],
    ["Job", record.job && element("code", {}, record.job)],
    ["Resource id", record.resource_id && element("code", {}, record.resource_id)],
    ["Event id", record.event_id && element("code", {}, record.event_id)],
  ];
  return element(
    "section",
    {},
    element("p", { class: "sentence" }, sentence(record, live)),
    element(
      "dl",
      { class: "facts" },
      facts.filter(([, value]) => value).map(([label, value]) => [element("dt", {}, label), element("dd", {}, value)]),
    ),
  );
}

function replayPart(command) {
  const results = element("div", { class: "results", role: "status" });
  const id = openId;
  const button = element(
    "button",
    {
      type: "button",
      class: "primary",
      "data-key": "replay",
      onclick: () =>
        act(button, results, async () => {
          const { lines } = await call("replay", { event_id: id });
          $("announcer").textContent = lines.join(" ");
          setTimeout(readDetail);
          return lines.map((text) => line({ tone: "good", text }));
        }),
    },
    "Replay",
  );
  return part(
    "Replay",
    element("p", { class: "muted" }, "Publishes the event from the log, as if Tableau had delivered it now."),
    element("p", { class: "actions" }, button),
    copyable(command),
    results,
  );
}

function copyable(text) {
  return element(
    "div",
    { class: "command" },
    element("code", {}, text),
    copyButton(() => text, "the command"),
  );
}

function copyButton(text, label) {
  const button = element(
    "button",
    {
      type: "button",
      class: "quiet",
      "data-key": `copy ${label}`,
      "aria-label": `Copy ${label}`,
      onclick: async () => {
        const isCopied = await navigator.clipboard.writeText(text()).then(
          () => true,
          () => false,
        );
        button.textContent = isCopied ? "Copied" : "Not copied";
        $("announcer").textContent = isCopied ? `Copied ${label}.` : "The browser refuses to copy.";
      },
    },
    "Copy",
  );
  return button;
}

/** The alert as card, e-mail and SMS. */
function alertPart(texts, alerts) {
  const [first, ...others] = alerts;
  const views = [["Card", first ? alertCard(first) : texts && textCard(texts.card)]];
  if (texts) {
    views.push([
      "E-mail",
      element(
        "div",
        { class: "mail" },
        element("p", { class: "subject" }, name(texts.subject)),
        element("p", { class: "text" }, texts.email),
      ),
    ]);
    views.push(["SMS", element("p", { class: "bubble" }, texts.sms)]);
  }
  if (views.length === 1) return part("Alert", views[0][1], others.map(alertCard));
  const panels = views.map(([label, node], index) =>
    element("div", { role: "tabpanel", id: `alert-panel-${index}`, "aria-labelledby": `alert-tab-${index}`, hidden: index > 0 }, node),
  );
  const tabs = views.map(([label], index) =>
    element(
      "button",
      {
        type: "button",
        role: "tab",
        id: `alert-tab-${index}`,
        "aria-controls": `alert-panel-${index}`,
        "aria-selected": String(index === 0),
        tabindex: index ? -1 : 0,
        "data-key": label,
      },
      label,
    ),
  );
  const list = element("div", { class: "small-tabs", role: "tablist", "aria-label": "Alert" }, tabs);
  tabList(list, (tab) => markSelected(list, tab));
  return part("Alert", list, panels, others.map(alertCard));
}

function textCard({ title, description, nextSteps, keywords }) {
  return element(
    "article",
    { class: "alert error-level" },
    element("h3", {}, name(title)),
    element("p", {}, marked(description)),
    (nextSteps ?? []).length > 0 &&
      element(
        "ul",
        { class: "steps" },
        nextSteps.map((step) => element("li", {}, marked(step))),
      ),
    element(
      "p",
      { class: "foot" },
      (keywords ?? []).map((keyword) => element("span", {}, name(keyword))),
    ),
  );
}

const STEPS = new Map(
  Object.entries({
    RefreshFailed: ["bad", "The refresh failed"],
    RefreshFailureExplained: ["bad", "The reason was published"],
    RefreshFailureResolved: ["good", "The refresh works again"],
    RefreshSucceeded: ["good", "The refresh succeeded"],
  }),
);

/** A refresh's failure, its reason, and its end. */
function storyPart(record, { failure, explanation, resolution, live }) {
  const steps = [failure, record, explanation, resolution].filter(Boolean).sort((a, b) => new Date(a.at) - new Date(b.at));
  const kind = (event) => STEPS.get(event) ?? STEPS.get(event.replace(/^(Workbook|Datasource)/, ""));
  if (!kind(record.event)) return null;
  const nodes = steps.map((step) => {
    const [mood, text] = kind(step.event) ?? ["", step.event];
    const findings = findingsOf((step === record ? live : events.get(step.event_id))?.event, true);
    const open =
      step !== record &&
      step.event_id &&
      element(
        "button",
        {
          type: "button",
          class: "quiet",
          "data-key": step.event_id,
          "aria-label": `Open ${step.event}`,
          onclick: () => openDetail(step.event_id),
        },
        "Open",
      );
    return element(
      "li",
      { class: mood },
      element(
        "div",
        { class: "spread" },
        element("span", {}, element("b", {}, text), " ", element("span", { class: "muted" }, time(step.at))),
        open,
      ),
      findings.length > 0 && element("p", {}, findings),
    );
  });
  if (/RefreshFailed$/.test(record.event) && !explanation)
    nodes.push(element("li", {}, element("span", { class: "muted" }, "Tableau’s reason follows within two minutes of the failure.")));
  return part("Story", element("ol", { class: "story" }, nodes));
}

function targetsPart(targets) {
  const rows = targets.map((it) =>
    element(
      "tr",
      {},
      [
        name(it.target),
        time(it.at),
        tag(words(it.outcome), { forwarded: "good", "dead letter": "bad", again: "warn" }[it.outcome]),
        String(it.attempts ?? ""),
        [it.status, it.error].filter(Boolean).join(" "),
      ].map((cell) => element("td", {}, cell)),
    ),
  );
  const heads = ["Target", "Time", "Outcome", "Attempts", "Answer"].map((text) => element("th", { scope: "col" }, text));
  return part(
    "Deliveries to targets",
    element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Deliveries to targets" },
      element("table", { class: "plain" }, element("thead", {}, element("tr", {}, heads)), element("tbody", {}, rows)),
    ),
  );
}

function jsonPart(title, value) {
  const text = JSON.stringify(value, null, 2);
  const label = `the ${title.toLowerCase()}`;
  return element(
    "section",
    {},
    element(
      "div",
      { class: "spread" },
      element("h3", {}, title),
      copyButton(() => text, label),
    ),
    element("pre", { class: "report", tabindex: "0", role: "region", "aria-label": title }, text),
  );
}

$("detail-close").addEventListener("click", () => detail.close());
detail.addEventListener("click", (event) => event.target === detail && detail.close());
detail.addEventListener("close", () => {
  const id = openId;
  openId = null;
  // The row may have been made again since.
  if (document.activeElement === document.body)
    [...document.querySelectorAll("[data-key]")].find((node) => node.dataset.key === id && node.checkVisibility())?.focus();
});

// ---- Start

/** Repeats an action while the page is visible, and less often the longer it takes. */
function repeat(action, seconds) {
  const again = (delay) =>
    setTimeout(async () => {
      const start = Date.now();
      if (!document.hidden) await action();
      again(Math.max(1000 * seconds(), PAUSE_FACTOR * (Date.now() - start)));
    }, delay);
  again(1000 * seconds());
}

connect();
await drawStart();
await readState();
// Each reading takes some thirty commands.
repeat(readState, () => (state?.is_local ? 60 : 300));
// The logs of a deployed stack are read on demand only.
repeat(
  async () => {
    if (state?.is_local && selected === "events") await readHistory();
    if (state?.is_local && detail.open) await readDetail();
  },
  () => 15,
);
