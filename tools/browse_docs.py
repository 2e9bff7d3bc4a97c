# SPDX-License-Identifier: BSD-3-Clause
"""Look at every page of the documentation in Chromium, on a desktop and on a phone, in light and in dark colours.

`python tools/browse_docs.py HTML [--screenshots FOLDER]`: the folder that Sphinx has built. It fails on errors of the
console, requests that fail, broken links between the pages, broken images, copies of code with prompts, and everything
that is wider than the window.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

BROWSERS = ("chromium", "google-chrome")
WIDTHS = {"desktop": 1280, "phone": 390}
HEIGHT = 900
COLOURS = ("light", "dark")

# Elements that reach beyond the window. Only a code block may be wider than its box: it can be scrolled.
FIND_OVERFLOW = """() => {
  const wide = [...document.querySelectorAll("article *:not(pre *)")].filter((e) =>
    e.getBoundingClientRect().right > innerWidth + 1 || (e.matches(".table-wrapper") && e.scrollWidth > e.clientWidth));
  if (document.documentElement.scrollWidth > innerWidth) wide.push(document.documentElement);
  const start = (e) => e.textContent.trim().replace(/\\s+/g, " ").slice(0, 40);
  return wide.map((e) => `${e.tagName.toLowerCase()}.${e.className}: ${start(e)}`);
}"""
FIND_BROKEN_IMAGES = "() => [...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)"
FIND_LINKS = "() => [...document.querySelectorAll('a[href]')].map((a) => a.href)"
FIND_IDS = "() => [...document.querySelectorAll('[id]')].map((e) => e.id)"
COPY_CODE = """async () => {
  const copies = [];
  for (const button of document.querySelectorAll("button.copybtn")) {
    button.click();
    copies.push(await navigator.clipboard.readText());
  }
  return copies;
}"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class Visit:
    """The pages in one browser, and the problems found so far."""

    def __init__(self, browser: Browser, address: str, names: list[str]) -> None:
        """Begin without problems."""
        self.browser = browser
        self.address = address
        self.names = names
        self.problems: list[str] = []
        self.links: dict[str, list[str]] = {}
        self.ids: dict[str, set[str]] = {}

    def look(self, device: str, colour: str, screenshots: Path | None) -> None:
        """Open every page at one width and in one colour."""
        context = self.browser.new_context(
            viewport={"width": WIDTHS[device], "height": HEIGHT},
            color_scheme="dark" if colour == "dark" else "light",
            is_mobile=device == "phone",
            permissions=["clipboard-read", "clipboard-write"],
        )
        page = context.new_page()
        where = ""

        def report(problem: str) -> None:
            self.problems.append(f"{where} ({device}, {colour}): {problem}")

        def report_message(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                report(f"console: {message.text}")

        def report_response(response: Response) -> None:
            if response.status >= 400:
                report(f"{response.status} {response.url}")

        page.on("console", report_message)
        page.on("pageerror", lambda error: report(f"exception: {error}"))
        page.on("response", report_response)
        for where in self.names:
            page.goto(self.address + where)
            for problem in page.evaluate(FIND_OVERFLOW):
                report(f"wider than the window: {problem}")
            for source in page.evaluate(FIND_BROKEN_IMAGES):
                report(f"broken image: {source}")
            if (device, colour) == ("desktop", "light"):
                self.read(page, where)
            if screenshots:
                name = where.replace("/", "-").replace(".html", f"-{device}-{colour}.png")
                page.screenshot(path=screenshots / name, full_page=True)
        context.close()

    def read(self, page: Page, name: str) -> None:
        """Remember the links and the anchors of a page, and press its copy buttons."""
        self.links[name] = page.evaluate(FIND_LINKS)
        self.ids[name] = set(page.evaluate(FIND_IDS))
        for copy in page.evaluate(COPY_CODE):
            if not copy or any(line.startswith((">>>", "...")) for line in copy.splitlines()):
                self.problems.append(f"{name}: bad copy of a code block: {copy[:60]!r}")

    def check_links(self) -> None:
        """Report links to pages or anchors that do not exist."""
        for name, links in self.links.items():
            for link in links:
                target, anchor = urldefrag(link)
                if not target.startswith(self.address):
                    continue
                page = target.removeprefix(self.address) or "index.html"
                if page.startswith(("_static/", "_downloads/")):
                    continue  # a missing file is a failed request
                if page not in self.ids or (anchor and unquote(anchor) not in self.ids[page]):
                    self.problems.append(f"{name}: broken link to {page}#{anchor}")


def main() -> int:
    """Return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("html", type=Path)
    parser.add_argument("--screenshots", type=Path)
    arguments = parser.parse_args()
    names = sorted(path.relative_to(arguments.html).as_posix() for path in arguments.html.rglob("*.html"))
    names = [name for name in names if not name.startswith("_")]
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit(f"found none of {', '.join(BROWSERS)}")
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    with serve(arguments.html) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        visit = Visit(browser, address, names)
        for device in WIDTHS:
            for colour in COLOURS:
                visit.look(device, colour, arguments.screenshots)
        browser.close()
    visit.check_links()
    print(*visit.problems, sep="\n")
    copies = len(WIDTHS) * len(COLOURS)
    print(f"{len(names)} pages, {copies} views of each, {sum(map(len, visit.links.values()))} links", end=": ")
    print(f"{len(visit.problems)} problems")
    return bool(visit.problems)


if __name__ == "__main__":
    sys.exit(main())
