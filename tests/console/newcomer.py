#!/usr/bin/env python3
"""Does in a browser what a newcomer does at the console of a running `cargo infra local`, and checks it.

    tests/console/newcomer.py URL FOLDER

URL is the console's address, with its token. FOLDER gets pictures and figures.json. Needs the Python packages of
tests/console/requirements.txt. Packages of npm, and a browser if none is installed, go into target/local. The exit
status is 3 if there is no browser.
"""

import http.client
import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

from browser import find_browser
from npm import install

HERE = Path(__file__).resolve().parent
PACKAGES = HERE.parent.parent / "target/local"

NO_BROWSER = 3

# An answer of the page itself, of the console, of a function, of a run, and the time within which a reason follows. A
# machine that is busy with other tests needs them.
PAGE_MS = 20_000
CONSOLE_MS = 60_000
EVENT_MS = 90_000
RUN_MS = 180_000
REASON_MS = 180_000

NAME = "Quarterly Revenue"
DOWN_NAME = "Published while SNS was down"
REASON = "Login failed for user 'etl'"
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
TABS = ["Tableau", "Events", "Sites"]

# Records whatever a hostile name could cause, and when the newest line of the list appeared.
WATCH = """
window.ran = undefined;
window.violations = [];
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) => {
  violations.push(`${violatedDirective} ${blockedURI} ${sample}`);
});
window.appearance = (text, selector) => new Promise((resolve) => {
  const isThere = (node) => node.textContent.includes(text);
  const look = () => [...document.querySelectorAll(selector)].some(isThere) && resolve(performance.now());
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
});
"""

FIRST_CONTENT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"

PAGE_BYTES = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter(({ name }) => /(\\/|console\\.(css|js))(#.*)?$/.test(name))
  .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)"""

APPEARANCES = """text => ({
  clicked: performance.now(), line: appearance(text, "#feed .event.bad"), card: appearance(text, "#feed .alert"),
})"""

IS_SHOWN = """wanted => document.getElementById("feed").textContent.replace(/[^A-Za-z0-9]/g, "").includes(wanted)"""

# Elements that the page never makes, and attributes that run code. A picture leaves an empty style at each input.
FOREIGN = (
    "script:not([src='console.js']), iframe, object, embed, img, video, math, base, style, template, animate, "
    "meta[http-equiv], form[action]"
)
HANDLERS = """() => [...document.querySelectorAll("*")].flatMap((node) => [...node.attributes])
  .filter(({ name, value }) => name.startsWith("on") || name === "srcdoc" || (name === "style" && value)
    || /^\\s*(javascript|data:text)/i.test(value))
  .map(({ name, value }) => `${name}=${value}`)"""


def step(sentence):
    print(f"- {sentence}", flush=True)


def letters(text):
    """The letters and digits of a text: SNS refuses some other characters, which the receiver leaves out."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


class Newcomer:
    """A page of the console, and the checks at it."""

    def __init__(self, browser, url, folder, axe):
        self.browser, self.url, self.folder, self.axe = browser, url, folder, axe
        self.figures, self.dialogs, self.errors = {}, [], []
        self.page = self.open()

    def open(self, size=WIDE, scheme="light", tab=""):
        """Opens the page anew."""
        context = self.browser.new_context(viewport=size, color_scheme=scheme, locale="en-GB", reduced_motion="reduce")
        context.set_default_timeout(CONSOLE_MS)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.note_error)
        page.goto(f"{self.url}{tab and f'#{tab.lower()}'}")
        expect(page.locator("#live")).to_have_text("live", timeout=CONSOLE_MS)
        expect(page.locator("#where")).not_to_be_empty(timeout=CONSOLE_MS)
        return page

    def note_error(self, line):
        # Chromium itself logs each answer with an error status, which the page shows.
        if line.type == "error" and "the server responded" not in line.text:
            self.errors.append(line.text)

    def tab(self, name, page=None):
        page = page or self.page
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.get_by_role("tabpanel", name=name, exact=True)).to_be_visible(timeout=PAGE_MS)

    def picture(self, name, page=None):
        (page or self.page).screenshot(path=self.folder / f"{name}.png")

    def submit(self, form, button):
        """Chooses a button of a form on the tab Tableau, and waits for the result."""
        form = self.page.locator(f"#{form}")
        form.get_by_role("button", name=button, exact=True).click()
        expect(form.locator("[aria-busy=true]")).to_have_count(0, timeout=EVENT_MS)
        expect(form.locator(".results .error")).to_have_count(0, timeout=PAGE_MS)
        expect(form.locator(".results")).not_to_be_empty(timeout=PAGE_MS)

    def row(self, text):
        return self.page.locator("#event-list tbody tr", has_text=text).first

    def run(self, action):
        """Lets the reconciler run for all sites. Returns the report."""
        self.page.locator("#runs").get_by_role("button", name=action, exact=True).click()
        expect(self.page.locator("#runs [aria-busy=true]")).to_have_count(0, timeout=RUN_MS)
        report = self.page.locator("#runs .report")
        expect(report).to_be_visible(timeout=PAGE_MS)
        return report.inner_text()

    def see_first_content(self):
        page = self.page
        expect(page.get_by_role("tab", name="Tableau", exact=True)).to_have_attribute("aria-selected", "true")
        self.figures["state_shown_ms"] = round(page.evaluate("performance.now()"))
        self.figures["first_content_ms"] = round(page.evaluate(FIRST_CONTENT))
        self.figures["page_bytes"] = page.evaluate(PAGE_BYTES)
        assert self.figures["page_bytes"] < 100_000, self.figures
        step("The page shows the tab Tableau first, is live, and has less than 100 KB.")

    def fail_a_refresh(self):
        page = self.page
        # The reading of the state takes the machine's time.
        expect(page.locator("#health")).not_to_have_text("reading the state", timeout=CONSOLE_MS)
        page.locator("#fail").get_by_label("Name").fill(NAME)
        watched = page.evaluate_handle(APPEARANCES, NAME)
        self.submit("fail", "Let the refresh fail")
        event = page.locator("#feed .event", has_text="WorkbookRefreshFailed").filter(has_text=NAME).first
        expect(event).to_be_visible(timeout=EVENT_MS)
        card = page.locator("#feed .alert", has_text=NAME).first
        expect(card).to_contain_text("refresh failed", timeout=EVENT_MS)
        for name in ["line", "card"]:
            took = page.evaluate(f"async (watched) => await watched.{name} - watched.clicked", watched)
            self.figures[f"failure_to_{name}_ms"] = round(took)
        step("A refresh fails: its event and its alert's card appear.")
        self.settle("Tableau", page)
        self.picture("tableau-light")
        expect(page.locator("#hint")).to_be_visible(timeout=PAGE_MS)
        page.get_by_role("button", name="Run the reconciler now").click()
        reason = page.locator("#feed .item:has(.event)", has_text="RefreshFailureExplained").filter(has_text=NAME).first
        expect(reason.locator(".alert")).to_contain_text(REASON, timeout=REASON_MS)
        expect(page.locator("#hint [aria-busy=true]")).to_have_count(0, timeout=RUN_MS)
        step("Tableau's reason follows, with a card of its own.")

    def open_event(self, event):
        """Opens an event of the refresh, in the list of arrivals."""
        self.page.locator("#feed .event", has_text=event).filter(has_text=NAME).first.click()
        expect(self.page.locator("#detail-title")).to_have_text(event, timeout=PAGE_MS)
        return self.page.locator("#detail")

    def close_event(self):
        self.page.locator("#detail").get_by_role("button", name="Close").click()
        expect(self.page.locator("#detail")).to_be_hidden(timeout=PAGE_MS)

    def read_the_story(self):
        page = self.page
        detail = self.open_event("RefreshFailureExplained")
        expect(detail.locator(".story")).to_contain_text("The refresh failed", timeout=CONSOLE_MS)
        expect(detail.locator(".alert")).to_contain_text(REASON, timeout=PAGE_MS)
        expect(detail.locator(".story").get_by_role("link", name="Open in Tableau")).to_be_visible(timeout=PAGE_MS)
        envelope = detail.get_by_label("Envelope", exact=True)
        expect(envelope).to_contain_text("com.tableau.RefreshFailureExplained", timeout=PAGE_MS)
        self.close_event()
        detail = self.open_event("WorkbookRefreshFailed")
        expect(detail.locator(".story")).to_contain_text("The reason was published", timeout=CONSOLE_MS)
        for view in ["Card", "E-mail", "SMS"]:
            detail.get_by_role("tab", name=view).click()
            expect(detail.get_by_role("tabpanel", name=view)).to_contain_text(NAME, timeout=PAGE_MS)
        self.check_accessibility("detail with tabs", page)
        self.close_event()
        step("The detail has the story, the alert as card, e-mail and SMS, and the envelope.")

    def repair_a_webhook(self):
        self.page.locator("#webhook").get_by_label("Event").select_option("ViewDeleted")
        self.submit("webhook", "Disable")
        self.tab("Sites")
        report = self.run("Plan")
        assert "1 to enable" in report, report
        expect(self.page.locator(".hooks li", has_text="ViewDeleted")).to_contain_text("to enable", timeout=PAGE_MS)
        step("Tableau disables a webhook: the plan has 1 to enable.")
        self.picture("sites-light")
        report = self.run("Apply")
        assert "1 enabled" in report, report
        report = self.run("Plan")
        assert "to enable" not in report, report
        step("A run enables it, and the next plan changes nothing.")
        self.tab("Tableau")

    def replay_an_event(self):
        page = self.page
        self.submit("outage", "Take SNS down")
        page.locator("#publish").get_by_label("Name").fill(DOWN_NAME)
        self.submit("publish", "Cause the event")
        self.tab("Events")
        row = self.row(DOWN_NAME)
        expect(row).to_contain_text("undelivered", timeout=EVENT_MS)
        row.get_by_role("button").click()
        replay = page.locator("#detail").get_by_role("button", name="Replay", exact=True)
        expect(replay).to_be_visible(timeout=CONSOLE_MS)
        expect(page.locator("#detail .command code")).to_contain_text("cargo infra replay", timeout=PAGE_MS)
        step("SNS is down: the published workbook is undelivered, with a replay.")
        self.picture("undelivered")
        page.keyboard.press("Escape")
        self.tab("Tableau")
        self.submit("outage", "Bring SNS back")
        self.tab("Events")
        row.get_by_role("button").click()
        replay.click()
        expect(page.locator("#detail .tag").first).to_have_text("published", timeout=EVENT_MS)
        page.keyboard.press("Escape")
        expect(row).to_contain_text("published", timeout=EVENT_MS)
        step("SNS is back: a replay publishes it.")
        self.tab("Sites")
        self.run("Apply")
        self.tab("Tableau")

    def publish_hostile_names(self):
        page = self.page
        payloads = (HERE / "payloads.txt").read_text(encoding="utf-8").splitlines()
        form = page.locator("#publish")
        form.get_by_label("Event").select_option("WorkbookUpdated")
        for payload in payloads:
            form.get_by_label("Name").fill(payload)
            self.submit("publish", "Cause the event")
            page.wait_for_function(IS_SHOWN, arg=letters(payload), timeout=EVENT_MS)
        page.locator("#fail").get_by_label("Name").fill(payloads[0])
        page.locator("#own-choice").check()
        page.locator("#own input").fill(payloads[3])
        self.submit("fail", "Let the refresh fail")
        feed = page.locator("#feed")
        expect(feed.locator(".alert", has_text="refresh failed").first).to_contain_text("window.ran", timeout=EVENT_MS)
        feed.locator(".event", has_text="script").first.click()
        envelope = page.locator("#detail").get_by_label("Envelope", exact=True)
        expect(envelope).to_contain_text("script", timeout=CONSOLE_MS)
        self.nothing_ran(page)
        page.keyboard.press("Escape")
        self.tab("Events")
        page.get_by_label("Search").fill("window.ran")
        expect(self.row("window.ran")).to_be_visible(timeout=EVENT_MS)
        self.nothing_ran(page)
        page.get_by_label("Search").fill("")
        self.tab("Tableau")
        page.locator("#foreign").get_by_label("Name").fill(payloads[0])
        self.submit("foreign", "Add it")
        self.tab("Sites")
        assert letters(payloads[0]) in letters(self.run("Plan")), "the report does not name the foreign webhook"
        self.nothing_ran(page)
        self.tab("Tableau")
        step(f"{len(payloads)} hostile names are shown as text, and nothing of them runs.")

    def nothing_ran(self, page):
        assert page.evaluate("window.ran") is None, "a name ran as code"
        assert not self.dialogs, self.dialogs
        assert not self.errors, self.errors
        violations = page.evaluate("violations")
        assert not violations, violations
        assert page.locator(FOREIGN).count() == 0, page.locator(FOREIGN).first.evaluate("node => node.outerHTML")
        attributes = page.evaluate(HANDLERS)
        assert not attributes, attributes

    def use_the_keyboard(self):
        page = self.open()
        keys, focused = page.keyboard, page.locator(":focus")
        self.press_until(page, "Tab", lambda: focused.get_attribute("role") == "tab", "the tabs")
        keys.press("ArrowRight")
        expect(page.get_by_role("tab", name="Events", exact=True)).to_be_focused(timeout=PAGE_MS)
        expect(page.locator("#event-list tbody tr").first).to_be_visible(timeout=EVENT_MS)
        keys.press("End")
        expect(page.get_by_role("tabpanel", name="Sites", exact=True)).to_be_visible(timeout=PAGE_MS)
        keys.press("ArrowLeft")
        self.press_until(page, "Tab", lambda: "open" in (focused.get_attribute("class") or ""), "a row")
        row = page.locator(":focus").evaluate_handle("node => node")
        keys.press("Enter")
        expect(page.locator("#detail")).to_be_visible(timeout=PAGE_MS)
        expect(page.locator("#detail-title")).to_be_focused(timeout=PAGE_MS)
        keys.press("Escape")
        expect(page.locator("#detail")).to_be_hidden(timeout=PAGE_MS)
        assert row.evaluate("node => node === document.activeElement"), "the focus did not return to the row"
        page.context.close()
        step("The keyboard alone selects tabs, opens a row, and returns from it.")

    def press_until(self, page, key, is_there, name):
        for _ in range(60):
            page.keyboard.press(key)
            if page.locator(":focus").count() and is_there():
                return
        raise AssertionError(f"the key {key} does not reach {name}")

    def rotate_after_a_question(self):
        self.tab("Sites")
        question = self.page.locator("#rotation")
        self.page.locator("#rotate").click()
        expect(question).to_be_visible(timeout=PAGE_MS)
        self.check_accessibility("question about the rotation", self.page)
        question.get_by_role("button", name="Cancel").click()
        expect(question).to_be_hidden(timeout=PAGE_MS)
        self.page.locator("#rotate").click()
        question.get_by_role("button", name="Rotate the keys").click()
        expect(self.page.locator("#runs .report")).to_contain_text("new signing key", timeout=RUN_MS)
        self.tab("Tableau")
        step("The keys are rotated after a question.")

    def refuse_strangers(self):
        address = urlsplit(self.url)
        origin = f"http://{address.netloc}"
        body = json.dumps({"action": "plan", "site": None})

        def status(method, path, headers=None):
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=CONSOLE_MS / 1000)
            headers = {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, body if method == "POST" else None, headers)
            answer = connection.getresponse()
            content = answer.read() if answer.status != 200 else b""
            connection.close()
            return answer.status, content, answer.headers

        for path in ["/", "/state", "/console.js", "/wrong/state", f"{address.path[:-2]}/state"]:
            assert status("GET", path)[:2] == (404, b""), path
        assert status("POST", "/run", {"origin": origin})[:2] == (404, b"")
        for host in ["example.com", f"localhost:{address.port}", f"example.com:{address.port}", address.hostname]:
            assert status("GET", f"{address.path}state", {"host": host})[0] == 403, host
        origins = ["null", "http://example.com", "http://127.0.0.1:1", origin.replace("http", "https")]
        for headers in [{}, *({"origin": other} for other in origins)]:
            for path in ["run", "replay", "simulate"]:
                assert status("POST", address.path + path, headers)[0] == 403, (path, headers)
        headers = status("GET", address.path)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, policy
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        step("Requests without the token, with another host or from another origin are refused.")

    def check_accessibility(self, place, page):
        """Checks the page with axe, which is evaluated, as the console's policy keeps other scripts out."""
        page.evaluate(self.axe)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        lines = [f"{it['impact']}: {it['help']}: {node['html'][:200]}" for it in found for node in it["nodes"]]
        assert not lines, f"{place}: " + "\n".join(lines)

    def look_at_all(self):
        """Checks and draws each tab in both schemes, and on a narrow screen."""
        for scheme in ["light", "dark"]:
            page = self.open(scheme=scheme)
            for tab in TABS:
                self.tab(tab, page)
                self.settle(tab, page)
                self.check_accessibility(f"{tab}, {scheme}", page)
                if scheme == "dark" or tab == "Events":
                    self.picture(f"{tab.lower()}-{scheme}", page)
            self.tab("Events", page)
            row = page.locator("#event-list tbody tr", has_text="RefreshFailureExplained").filter(has_text=NAME).first
            row.get_by_role("button").click()
            expect(page.locator("#detail .story")).to_be_visible(timeout=CONSOLE_MS)
            self.check_accessibility(f"detail, {scheme}", page)
            self.picture(f"detail-{scheme}", page)
            page.context.close()
        for tab in TABS:
            page = self.open(NARROW, tab=tab)
            self.settle(tab, page)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= NARROW["width"], f"{tab} is {width} wide on a narrow screen"
            self.picture(f"narrow-{tab.lower()}", page)
            page.context.close()
        step("axe reports nothing on any tab, light or dark, and the page fits a narrow screen.")

    def settle(self, tab, page):
        """Waits until a tab shows what it reads."""
        expect(page.locator("#health")).not_to_have_text("reading the state", timeout=CONSOLE_MS)
        if tab == "Events":
            expect(page.locator("#event-list tbody tr").first).to_be_visible(timeout=EVENT_MS)
            expect(page.locator("#plot svg")).to_be_visible(timeout=EVENT_MS)
        if tab == "Sites":
            expect(page.locator("#site-list .box").first).to_be_visible(timeout=CONSOLE_MS)

    def all(self):
        self.see_first_content()
        self.refuse_strangers()
        self.fail_a_refresh()
        self.read_the_story()
        self.repair_a_webhook()
        self.replay_an_event()
        self.look_at_all()
        self.use_the_keyboard()
        self.publish_hostile_names()
        self.rotate_after_a_question()
        self.nothing_ran(self.page)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    url, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found = find_browser(PACKAGES / "console-chromium")
    if not found:
        print("No browser was found, and none could be installed, so the console is not tested. Fix: install Chromium.")
        sys.exit(NO_BROWSER)
    axe = (install(HERE, PACKAGES / "console-node") / "axe-core/axe.min.js").read_text(encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.path, env=found.environment)
        newcomer = Newcomer(browser, url, folder, axe)
        try:
            newcomer.all()
        except BaseException:
            newcomer.picture("failure")
            raise
        figures = {"browser": f"{found.version} {found.origin}", **newcomer.figures}
        (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(figures), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
